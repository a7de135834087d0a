"""The smaller model of a plan, and where each of its weights comes from."""

from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import keras
import numpy as np

from keras_lottery.compaction.copying import copy_adapted, copy_layer
from keras_lottery.compaction.planning import Plan
from keras_lottery.compaction.rules import Part, Shrunk, positions
from keras_lottery.compaction.tracing import Graph, as_functional
from keras_lottery.masks import Array


@dataclass
class Smaller:
    """A smaller model beside the one it was cut from.

    Attributes:
        model: The smaller model, its weights written.
        layers: Pairs of a layer and its smaller copy.
        parts: Pairs of a variable of the smaller model and where it comes from.
    """

    model: keras.Model
    layers: list[tuple[Any, Any]] = field(default_factory=list)
    parts: list[tuple[keras.Variable, Part]] = field(default_factory=list)


def rebuild(plan: Plan) -> Smaller:
    """Builds the smaller model of a plan: same class of graph, names and dtypes.

    Raises:
        ValueError: If a layer cannot be copied; names it.
    """
    builder = _Builder(plan)
    smaller = Smaller(builder.build(plan.graph))
    for old, new, shrunk in builder.copies:
        smaller.layers.append((old, new))
        if shrunk is not None and shrunk.parts:
            smaller.parts += [(attrgetter(part.attribute)(new), part) for part in shrunk.parts]
        else:
            pairs = zip(old.variables, new.variables, strict=True)
            smaller.parts += [(b, Part("", a, positions(a))) for a, b in pairs]
            copy_adapted(old, new)
    for variable, part in smaller.parts:
        variable.assign(cut(part, variable.numpy().dtype))
    return smaller


def cut(part: Part, dtype: Any) -> Array:
    """The values of a smaller layer's variable."""
    if part.old is None:
        return np.broadcast_to(part.add, part.source.shape).astype(dtype)
    old = part.old.numpy()
    taken = np.where(part.source < 0, old.dtype.type(0), old.ravel()[part.source])
    if part.scale == 1 and not np.any(part.add):
        return np.asarray(taken)
    return np.asarray(taken.astype(np.float64) * part.scale + part.add).astype(dtype)


class _Builder:
    """Copies layers, once each, with the sizes that the plan leaves them."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.copies: list[tuple[Any, Any, Shrunk | None]] = []
        self._made: dict[int, Any] = {}
        self._graphs = dict(_graphs(plan.graph))

    def build(self, graph: Graph) -> keras.Model:
        """The smaller model of a graph."""
        model = graph.model
        whole = as_functional(model)
        starts = [x for x in whole.layers if isinstance(x, keras.layers.InputLayer)]
        configs = {id(x.output): x.get_config() for x in starts}
        shapes = iter(self._shapes(graph))
        inputs = keras.tree.map_structure(
            lambda t: keras.Input(**{**configs[id(t)], "batch_shape": next(shapes)}), whole.input
        )
        if isinstance(model, keras.Sequential):
            layers = [self.copy(layer) for layer in model.layers]
            new = keras.Sequential([inputs, *layers], name=model.name)
        else:
            new = keras.models.clone_model(whole, input_tensors=inputs, clone_function=self.copy)
        if not model.trainable:
            new.trainable = False
        return new

    def _shapes(self, graph: Graph) -> list[tuple[int | None, ...]]:
        """Shapes of a graph's inputs, with the batch."""
        whole = [tuple(graph.tensors[key].shape) for key in graph.inputs]
        flows = self.plan.context.entries.get(id(graph.model))
        if flows is None or id(graph.model) in self.plan.context.rigid:
            return whole
        kept = [len(self.plan.solution.kept(x.columns[0])) for x in flows]
        return [(*s[:-1], n) if s[1:] and s[-1] else s for s, n in zip(whole, kept, strict=True)]

    def copy(self, layer: Any) -> Any:
        """The smaller layer, or a copy; the same one at every call."""
        if id(layer) not in self._made:
            graph = self._graphs.get(id(layer))
            made = self._copy_layer(layer) if graph is None else self.build(graph)
            self._made[id(layer)] = made
        return self._made[id(layer)]

    def _copy_layer(self, layer: Any) -> Any:
        site = self.plan.context.sites.get(id(layer))
        shrunk = site.rule.shrink(layer, site, self.plan.solution) if site else None
        new = copy_layer(layer, shrunk)
        if isinstance(layer, keras.layers.Layer):
            self.copies.append((layer, new, shrunk))
        return new


def _graphs(graph: Graph) -> list[tuple[int, Graph]]:
    """All nested graphs by the id of their model."""
    found = list(graph.nested.items())
    return found + [pair for inner in graph.nested.values() for pair in _graphs(inner)]
