"""How often each weight multiplies when a model computes one example."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_lottery.compaction.tracing import Call, Graph, is_graph, trace

Shape = tuple[int | None, ...]
Uses = dict[int, int | None]

L = keras.layers


def uses(model: keras.Model) -> Uses:
    """How often each weight of a variable is multiplied with something for one example.

    A kernel's multiply-adds are this times its size; on the alive weights, times those. A
    convolution counts all positions of its output, those next to the padding too. A shared
    layer counts at each of its calls. A look-up in an embedding multiplies nothing.

    Args:
        model: A built Keras model.

    Returns:
        Dict of a variable's `id` to the number, or `None` where the kind of layer is not known
        or the number depends on a size that is not (time, height, width). Biases and other
        weights of one axis are not counted. Empty for a subclassed model.

    Example: a kernel of 3x3 on an image of 8x8, without padding.

    >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3)])
    >>> uses(model)[id(model.layers[0].kernel)]
    36
    """
    found: Uses = {}
    for graph, call in _calls(trace(model)) if is_graph(model) else ():
        for key, times in _of_call(graph, call).items():
            before = found.get(key, 0)
            found[key] = None if before is None or times is None else before + times
    return found


def _calls(graph: Graph) -> Iterator[tuple[Graph, Call]]:
    """All calls, with those of nested models, and the graph that each is in."""
    for call in graph.calls:
        inner = graph.nested.get(id(call.layer))
        if inner is None:
            yield graph, call
        else:
            yield from _calls(inner)


def _of_call(graph: Graph, call: Call) -> Uses:
    layer = call.layer
    if not isinstance(layer, keras.layers.Layer):
        return {}
    rule = next((RULES[kind] for kind in type(layer).__mro__ if _fits(kind, layer)), None)
    found: Uses = {id(v): None for v in layer.variables if len(v.shape) >= 2 and v.name != "bias"}
    if rule is None or getattr(layer, "lora_enabled", False):
        return found
    inputs = [graph.shape(key) for key in call.inputs]
    known = rule(layer, inputs, graph.shape(call.outputs[0]))
    return found | {id(v): times for v, times in known}


def _fits(kind: type, layer: Any) -> bool:
    return kind in RULES and type(layer).call is kind.call  # type: ignore[attr-defined]


def _product(sizes: Shape) -> int | None:
    return None if None in sizes else math.prod(n for n in sizes if n is not None)


def _positions(layer: Any, shape: Shape) -> int | None:
    """Places of an image."""
    last = layer.data_format == "channels_last"
    return _product(shape[:-1] if last else shape[1:])


Known = list[tuple[keras.Variable, int | None]]


def _dense(layer: Any, inputs: list[Shape], output: Shape) -> Known:
    return [(layer.kernel, _product(inputs[0][:-1]))]


def _conv(layer: Any, inputs: list[Shape], output: Shape) -> Known:
    return [(layer.kernel, _positions(layer, output))]


def _transposed(layer: Any, inputs: list[Shape], output: Shape) -> Known:
    return [(layer.kernel, _positions(layer, inputs[0]))]


def _separable(layer: Any, inputs: list[Shape], output: Shape) -> Known:
    times = _positions(layer, output)
    return [(layer.depthwise_kernel, times), (layer.pointwise_kernel, times)]


def _einsum(layer: Any, inputs: list[Shape], output: Shape) -> Known:
    read, held = layer.equation.split("->")[0].split(",")
    shared = [n for name, n in zip(held, layer.kernel.shape, strict=True) if name in read]
    total = _product(inputs[0])
    return [(layer.kernel, None if total is None else total // int(np.prod(shared)))]


def _embedding(layer: Any, inputs: list[Shape], output: Shape) -> Known:
    return [(layer.embeddings, 0)]


def _attention(layer: Any, inputs: list[Shape], output: Shape) -> Known:
    query, value, key = (*inputs, inputs[1])[:3]
    shapes = {"query": query, "value": value, "key": key, "output": output}
    return [
        (getattr(layer, f"{name}_dense").kernel, _product(shape[:-1]))
        for name, shape in shapes.items()
    ]


def _recurrent(layer: Any, inputs: list[Shape], output: Shape) -> Known:
    return [(v, inputs[0][0]) for v in (layer.cell.kernel, layer.cell.recurrent_kernel)]


RULES: dict[type, Callable[[Any, list[Shape], Shape], Known]] = {
    L.Dense: _dense,
    L.EinsumDense: _einsum,
    L.Embedding: _embedding,
    L.MultiHeadAttention: _attention,
    **dict.fromkeys((L.Conv1D, L.Conv2D, L.Conv3D, L.DepthwiseConv1D, L.DepthwiseConv2D), _conv),
    **dict.fromkeys((L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose), _transposed),
    **dict.fromkeys((L.SeparableConv1D, L.SeparableConv2D), _separable),
    **dict.fromkeys((L.SimpleRNN, L.LSTM, L.GRU), _recurrent),
}
