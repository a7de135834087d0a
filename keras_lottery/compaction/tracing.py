"""The graph of a functional or Sequential model: which layer is called on which tensors."""

import functools
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import keras

Key = int


@dataclass(frozen=True)
class Call:
    """One call of a layer or of a Keras operation.

    Attributes:
        layer: The layer or operation of the model.
        args, kwargs: Its arguments; tensors are `keras.KerasTensor`.
        inputs, outputs: Keys of the tensors among the arguments, positional ones first and
            then by name, backwards (value before key), and of the results.
        masks: Keys of the tensors among the arguments called `...mask`.
    """

    layer: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[Key, ...]
    outputs: tuple[Key, ...]
    masks: tuple[Key, ...] = ()

    def extras(self, options: Collection[str] = ()) -> list[str]:
        """Names of its arguments that are no tensors to compute with, no masks and no `options`."""
        given = {k for k, v in self.kwargs.items() if v is not None and v is not False}
        named = sorted(k for k in given if k not in options and not _is_mask(k))
        tensors = all(map(_is_tensor, keras.tree.flatten(self.args)))
        return named if tensors else ["constants", *named]


@dataclass(frozen=True)
class Graph:
    """All calls of a model, in an order in which they can run.

    Attributes:
        model: The model.
        inputs, outputs: Keys of its tensors, flattened.
        calls: List of `Call`; a nested model is one call.
        tensors: Dict of key to `keras.KerasTensor`; shapes have the batch first.
        nested: Dict of a nested model's id to its own graph.
    """

    model: keras.Model
    inputs: tuple[Key, ...]
    outputs: tuple[Key, ...]
    calls: list[Call]
    tensors: dict[Key, keras.KerasTensor]
    nested: dict[int, "Graph"]

    def shape(self, key: Key) -> tuple[int | None, ...]:
        """A tensor's shape without the batch."""
        return tuple(self.tensors[key].shape[1:])

    def all_calls(self) -> list[Call]:
        """The calls of this graph and of those nested in it; of a nested model called
        twice, twice."""
        found = []
        for call in self.calls:
            inner = self.nested.get(id(call.layer))
            found += [call] if inner is None else [call, *inner.all_calls()]
        return found


def _is_tensor(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor)


def _is_mask(name: str) -> bool:
    return name.endswith("mask")


@functools.cache
def _functional() -> type:
    """The class that Keras gives models made from tensors; it has no public name."""
    tensor = keras.Input((1,))
    return type(keras.Model(tensor, tensor))


def is_graph(layer: Any) -> bool:
    """Whether a layer is a model whose graph can be seen: functional or Sequential."""
    if isinstance(layer, keras.Sequential):
        own = type(layer).call is not keras.Sequential.call
        return bool(layer.built and layer.layers and not own)
    functional: Any = _functional()
    return isinstance(layer, functional) and type(layer).call is functional.call


def as_functional(model: keras.Model) -> keras.Model:
    """An uncompiled functional model of the same layers and tensors."""
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return keras.Model(model.input, model.output, name=model.name)


class _Shape(keras.Operation):
    """Stands for a layer in a copied graph: computes shapes, holds no weights."""

    def __init__(self, layer: Any):
        super().__init__()
        self.of = lambda: layer

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        return self.of().compute_output_spec(*args, **kwargs)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("A traced graph has shapes only.")


def trace(model: keras.Model) -> Graph:
    """Reads the graph of a functional or Sequential model; the model is not changed."""
    calls: list[Call] = []
    tensors: dict[Key, keras.KerasTensor] = {}

    def keys(structure: Any) -> tuple[Key, ...]:
        found = [t for t in keras.tree.flatten(structure) if _is_tensor(t)]
        tensors.update({id(t): t for t in found})
        return tuple(id(t) for t in found)

    def record(stub: _Shape, *args: Any, **kwargs: Any) -> Any:
        outputs = stub(*args, **kwargs)
        names = sorted(kwargs, reverse=True)
        inputs = keys([*args, *[kwargs[name] for name in names if not _is_mask(name)]])
        masks = keys([kwargs[name] for name in names if _is_mask(name)])
        calls.append(Call(stub.of(), args, kwargs, inputs, keys(outputs), masks))
        return outputs

    copy = keras.models.clone_model(
        as_functional(model), clone_function=_Shape, call_function=record
    )
    inner = {id(c.layer): c.layer for c in calls if is_graph(c.layer)}
    nested = {key: trace(layer) for key, layer in inner.items()}
    return Graph(model, keys(copy.inputs), keys(copy.outputs), calls, tensors, nested)
