"""Layers that pass channels on: elementwise, normalization, pooling, reshaping, merging."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import keras
import numpy as np

from keras_lottery.compaction.flows import Floats, Flow, Shape, Solution
from keras_lottery.compaction.rules import (
    Context,
    Part,
    Shrunk,
    Site,
    apply,
    is_elementwise,
    needs,
    of_channels,
    values,
)  # fmt: skip


class Passing:
    """Base of rules whose layers hold no channel of their own: nothing in them changes."""

    options: frozenset[str] = frozenset()

    def shrink(self, layer: Any, site: Site, solution: Solution) -> Shrunk:
        return Shrunk({}, [])


class Elementwise(Passing):
    """Activations, and what does nothing at inference: dropout, noise.

    Args:
        function: `layer -> function` of arrays. Default: nothing is done.
    """

    def __init__(self, function: Callable[[Any], Any] | None = None):
        self.function = function

    def flow(self, context: Context, layer: Any, inputs: list[Flow], shape: Shape) -> Flow:
        (x,) = inputs
        if isinstance(layer, keras.layers.Activation):
            needs(is_elementwise(layer.activation), "its activation mixes channels or is unknown")
        if isinstance(layer, keras.layers.ReLU):
            needs(np.ndim(layer.negative_slope) == 0, "its slopes differ")
        const = x.const if self.function is None else apply(self.function(layer), x.const)
        return context.remember(layer, Site(self, inputs, Flow(shape, x.ids, const)))


class Scaling(Passing):
    """Layers with a weight a channel: BatchNormalization, PReLU."""

    def __init__(self, weights: tuple[str, ...]):
        self.weights = weights

    def flow(self, context: Context, layer: Any, inputs: list[Flow], shape: Shape) -> Flow:
        (x,) = inputs
        ids = context.channels.merge_positions(x)
        if isinstance(layer, keras.layers.BatchNormalization):
            needs(layer.axis in (-1, len(shape)), "it normalizes another axis than the last")
            const = self._normalized(layer, x.column_const)
        else:
            needs(layer.alpha.shape[-1] == len(ids), "its slopes are shared by channels")
            const = np.where(x.column_const >= 0, x.column_const, np.nan)
        if not context.constants:
            const = context.unknown(len(ids))
        return context.remember(layer, Site(self, inputs, of_channels(ids, const, shape)))

    def _normalized(self, layer: Any, const: Floats) -> Floats:
        factor = 1.0 / np.sqrt(values(layer.moving_variance) + layer.epsilon)
        if layer.scale:
            factor = factor * values(layer.gamma)
        start = values(layer.beta) if layer.center else 0.0
        shifted = start - values(layer.moving_mean) * factor
        return np.asarray(np.where(factor == 0, shifted, const * factor + shifted))

    def shrink(self, layer: Any, site: Site, solution: Solution) -> Shrunk:
        kept = solution.kept(site.inputs[0].columns[0])
        parts = []
        for name in self.weights:
            variable = getattr(layer, name, None)
            if variable is not None:
                shape = tuple(variable.shape)
                index = np.arange(int(np.prod(shape))).reshape(shape)[..., kept]
                parts.append(Part(name, variable, index))
        return Shrunk({}, parts)


class Spatial(Passing):
    """Layers that move or sum positions and leave channels alone: pooling, cropping, ...

    Args:
        zeros: Whether zeros may come in at the borders, so that only zero stays constant.
    """

    def __init__(self, zeros: bool = False):
        self.zeros = zeros

    def flow(self, context: Context, layer: Any, inputs: list[Flow], shape: Shape) -> Flow:
        (x,) = inputs
        last = getattr(layer, "data_format", "channels_last")
        needs(last in ("channels_last", None), "its channels come first")
        const = x.column_const
        if self.zeros:
            const = np.where(const == 0, const, np.nan)
        ids = context.channels.merge_positions(x)
        return context.remember(layer, Site(self, inputs, of_channels(ids, const, shape)))


class Reshape(Passing):
    """Flatten and Reshape: each number keeps its channel's id."""

    def flow(self, context: Context, layer: Any, inputs: list[Flow], shape: Shape) -> Flow:
        (x,) = inputs
        last = getattr(layer, "data_format", "channels_last")
        needs(last in ("channels_last", None), "its channels come first")
        needs(None not in (*x.shape, *shape), "a size is unknown")
        needs(len(shape) > 0, "its output has no channels")
        sizes: Any = (x.shape, shape)
        ids = np.broadcast_to(x.ids, sizes[0] or (1,)).reshape(sizes[1])
        const = np.broadcast_to(x.const, sizes[0] or (1,)).reshape(sizes[1])
        flow = Flow(shape, ids, const)
        first = context.sites.get(id(layer))
        if len(shape) > 1:
            context.channels.merge_positions(flow)
        if first is not None and self._target(layer)[-1] != -1:
            context.channels.merge(first.output.columns[0], flow.columns[0])
        return context.remember(layer, Site(self, inputs, flow))

    def _target(self, layer: Any) -> tuple[int, ...]:
        return (-1,) if isinstance(layer, keras.layers.Flatten) else tuple(layer.target_shape)

    def shrink(self, layer: Any, site: Site, solution: Solution) -> Shrunk:
        target = self._target(layer)
        if target[-1] == -1:
            return Shrunk({}, [])
        kept = len(solution.kept(site.output.columns[0]))
        return Shrunk({"target_shape": (*target[:-1], kept)}, [])


def _sum(parts: list[Floats]) -> Floats:
    return reduce(np.add, parts)


def _product(parts: list[Floats]) -> Floats:
    zero = reduce(np.logical_or, [p == 0 for p in parts])
    return np.where(zero, 0.0, reduce(np.multiply, parts))


MERGES: dict[str, Callable[[list[Floats]], Floats]] = {
    "Add": _sum,
    "Subtract": lambda parts: parts[0] - parts[1],
    "Multiply": _product,
    "Average": lambda parts: _sum(parts) / len(parts),
    "Maximum": lambda parts: reduce(np.maximum, parts),
    "Minimum": lambda parts: reduce(np.minimum, parts),
}


class Merge(Passing):
    """Elementwise sums, products, ... of several tensors: a channel goes from all or none."""

    def flow(self, context: Context, layer: Any, inputs: list[Flow], shape: Shape) -> Flow:
        channels = {x.ids.shape[-1] for x in inputs}
        needs(len({len(x.shape) for x in inputs}) == 1, "its inputs differ in rank")
        needs(len(channels) == 1, "it spreads one channel over several")
        ids = reduce(lambda a, b: a if a.size >= b.size else b, [x.ids for x in inputs])
        for x in inputs:
            context.channels.merge(ids, x.ids)
        const = MERGES[type(layer).__name__]([x.const for x in inputs])
        return context.remember(layer, Site(self, inputs, Flow(shape, ids, const)))


class Concatenate(Passing):
    """Channels side by side, or one behind the other in space."""

    def flow(self, context: Context, layer: Any, inputs: list[Flow], shape: Shape) -> Flow:
        rank = len(shape)
        if layer.axis in (-1, rank):
            flow = Flow(shape, _joined([x.ids for x in inputs]), _joined([x.const for x in inputs]))
            return context.remember(layer, Site(self, inputs, flow))
        columns = [context.channels.merge_positions(x) for x in inputs]
        for ids in columns[1:]:
            context.channels.merge(columns[0], ids)
        consts = np.stack([x.column_const for x in inputs])
        const = np.where((consts == consts[0]).all(0), consts[0], np.nan)
        return context.remember(layer, Site(self, inputs, of_channels(columns[0], const, shape)))


def _joined(arrays: list[Any]) -> Any:
    """Along the last axis, the others broadcast."""
    shape = np.broadcast_shapes(*[a.shape[:-1] for a in arrays])
    return np.concatenate([np.broadcast_to(a, (*shape, a.shape[-1])) for a in arrays], axis=-1)
