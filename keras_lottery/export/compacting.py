"""`kl.export.compact`: a physically smaller model with the same function."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, overload

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from keras_lottery.compaction.planning import Plan, plan
from keras_lottery.compaction.rebuilding import Smaller, rebuild
from keras_lottery.compaction.tracing import is_graph
from keras_lottery.display import say
from keras_lottery.export.targets import exportable


@dataclass(frozen=True)
class LayerChange:
    """One layer before and after.

    Attributes:
        name: The layer's name.
        units: Its output channels, before and after.
        parameters: Its weights, all counted, before and after.
    """

    name: str
    units: tuple[int, int]
    parameters: tuple[int, int]


@dataclass(frozen=True)
class CompactReport:
    """What `compact` took out, and what it left and why.

    Attributes:
        parameters: Of the model, before and after.
        layers: A `LayerChange` for each layer that got smaller.
        left: Layer name to the reason why the layer and its neighbours stayed as they were.
        dead_inputs: Input name to a bool array of the input's shape (1 where a size is
            unknown), True where nothing alive reads it. Empty unless asked for.
    """

    parameters: tuple[int, int]
    layers: Sequence[LayerChange]
    left: dict[str, str]
    dead_inputs: dict[str, NDArray[np.bool_]] = field(default_factory=dict)

    def __str__(self) -> str:
        before, after = self.parameters
        lines = [f"{before:,} parameters before, {after:,} after ({after / max(1, before):.1%})"]
        lines += [
            f"  {c.name}: {c.units[0]} -> {c.units[1]} channels, "
            f"{c.parameters[0]:,} -> {c.parameters[1]:,} parameters"
            for c in self.layers
        ]
        lines += [f"  {name} and its neighbours left: {why}" for name, why in self.left.items()]
        lines += [
            f"  input {name}: {int(dead.sum())} of {dead.size} features are read by nothing alive"
            for name, dead in self.dead_inputs.items()
        ]
        return "\n".join(lines)


@overload
def compact(
    model: keras.Model,
    input_features: bool = ...,
    verbose: int = ...,
    return_report: Literal[False] = ...,
) -> keras.Model: ...
@overload
def compact(
    model: keras.Model,
    input_features: bool = ...,
    verbose: int = ...,
    *,
    return_report: Literal[True],
) -> tuple[keras.Model, CompactReport]: ...
def compact(
    model: keras.Model,
    input_features: bool = False,
    verbose: int = 1,
    return_report: bool = False,
) -> Any:
    """Takes out the units, channels and parts of attention heads that do nothing.

    A unit goes if no alive weight reads it, or if no alive weight feeds it: it is then the
    same for every input, and what it gave moves into the next biases. Both rules follow
    each other through the whole model, so that one unit can take others with it. The
    outputs differ by rounding only, at most 1e-5 of the largest one.

    Understood are Dense, convolutions (grouped, depthwise, separable, transposed),
    Embedding, MultiHeadAttention, BatchNormalization, elementwise activations, dropout,
    pooling, padding, Flatten, Reshape, and the merging layers, in Sequential, functional and
    nested models. Where branches meet, a channel goes from all of them or from none. Any
    other layer stays whole, with the channels it reads and gives. Inputs and outputs of
    the model keep their shapes.

    Args:
        model: A built Sequential or functional model. It is not changed.
        input_features: Whether to report the input features that nothing alive reads.
        verbose: 0 for silence, 1 to print the report.
        return_report: Whether to return the report too.

    Returns:
        A new, uncompiled Keras model; with `return_report=True` a tuple of it and a
        `CompactReport`.

    Raises:
        ValueError: If the model is not built, is subclassed (its graph cannot be seen), or
            holds a layer that cannot be copied.

    Example:

    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)]
    ... )
    >>> kernel = np.ones((8, 2), "float32")
    >>> kernel[3:] = 0  # nothing reads units 3 to 7
    >>> _ = model.layers[1].kernel.assign(kernel)
    >>> compact(model, verbose=0).layers[0].units
    3
    """
    plain = exportable(model)
    if not is_graph(plain):
        raise ValueError(
            f"Expected a Sequential or functional model. Received: {model.name!r}, a subclassed "
            f"{type(model).__name__}, whose graph cannot be seen. Compact the functional parts of "
            "it, or export it as a sparse SavedModel."
        )
    found = plan(plain, _not_zero)
    smaller = rebuild(found)
    report = _report(plain, found, smaller, input_features)
    if verbose:
        say(Console(), str(report))
    return (smaller.model, report) if return_report else smaller.model


def _not_zero(variable: keras.Variable) -> NDArray[np.bool_]:
    return np.asarray(variable.numpy() != 0)


def _report(
    model: keras.Model, found: Plan, smaller: Smaller, input_features: bool
) -> CompactReport:
    pairs = [(old, new) for old, new in smaller.layers if id(old) in found.context.sites]
    changes = [_change(found, old, new) for old, new in pairs]
    return CompactReport(
        (model.count_params(), smaller.model.count_params()),
        [c for c in changes if c.parameters[0] != c.parameters[1]],
        dict(found.context.left),
        _dead_inputs(model, found) if input_features else {},
    )


def _change(found: Plan, old: Any, new: Any) -> LayerChange:
    ids = found.context.sites[id(old)].output.columns[0]
    return LayerChange(
        old.name,
        (len(ids), len(found.solution.kept(ids))),
        (old.count_params(), new.count_params()),
    )


def _dead_inputs(model: keras.Model, found: Plan) -> dict[str, NDArray[np.bool_]]:
    names = [tensor.name for tensor in model.inputs]
    flows = zip(names, found.inputs, strict=True)
    return {name: ~found.solution.is_needed(flow.ids) for name, flow in flows}
