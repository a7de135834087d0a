"""From a model to what is needed of it: rules are applied call by call, then solved."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_lottery.compaction import passing, readers
from keras_lottery.compaction.attention import MultiHeadAttention
from keras_lottery.compaction.flows import Bools, Flow, Ids, Shape, Solution, per_channel
from keras_lottery.compaction.rules import (
    Context,
    NotUnderstoodError,
    Rule,
    needs,
)  # fmt: skip
from keras_lottery.compaction.tracing import Call, Graph, trace
from keras_lottery.weights import sublayers

L = keras.layers
_IDENTITY = passing.Elementwise()
_SPATIAL = passing.Spatial()
_MERGE = passing.Merge()

RULES: dict[type, Rule] = {
    L.Dense: readers.Dense(),
    **dict.fromkeys((L.Conv1D, L.Conv2D, L.Conv3D), readers.Conv()),
    **dict.fromkeys(
        (L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose), readers.Transposed()
    ),
    **dict.fromkeys((L.SeparableConv1D, L.SeparableConv2D), readers.Separable()),
    **dict.fromkeys((L.DepthwiseConv1D, L.DepthwiseConv2D), readers.Depthwise()),
    L.Embedding: readers.Embedding(),
    L.MultiHeadAttention: MultiHeadAttention(),
    L.BatchNormalization: passing.Scaling(("gamma", "beta", "moving_mean", "moving_variance")),
    L.PReLU: passing.Scaling(("alpha",)),
    **dict.fromkeys((L.Flatten, L.Reshape), passing.Reshape()),
    L.Concatenate: passing.Concatenate(),
    L.Activation: passing.Elementwise(lambda layer: layer.activation),
    **dict.fromkeys((L.ReLU, L.LeakyReLU, L.ELU), passing.Elementwise(lambda layer: layer)),
    **dict.fromkeys(
        (
            L.Dropout, L.SpatialDropout1D, L.SpatialDropout2D, L.SpatialDropout3D, L.AlphaDropout,
            L.GaussianDropout, L.GaussianNoise, L.ActivityRegularization, L.Identity,
        ),
        _IDENTITY,
    ),
    **dict.fromkeys(
        (L.Add, L.Subtract, L.Multiply, L.Average, L.Maximum, L.Minimum), _MERGE
    ),
    **dict.fromkeys(
        (
            L.MaxPooling1D, L.MaxPooling2D, L.MaxPooling3D, L.AveragePooling1D,
            L.AveragePooling2D, L.AveragePooling3D, L.GlobalMaxPooling1D, L.GlobalMaxPooling2D,
            L.GlobalMaxPooling3D, L.GlobalAveragePooling1D, L.GlobalAveragePooling2D,
            L.GlobalAveragePooling3D, L.UpSampling1D, L.UpSampling2D, L.UpSampling3D,
            L.Cropping1D, L.Cropping2D, L.Cropping3D, L.RepeatVector,
        ),
        _SPATIAL,
    ),
    **dict.fromkeys((L.ZeroPadding1D, L.ZeroPadding2D, L.ZeroPadding3D), passing.Spatial(True)),
}  # fmt: skip

# Keras operations that `x + y` and `keras.ops.relu(x)` put into a graph, by class name.
_OPERATIONS: dict[str, Rule] = {
    **dict.fromkeys(("Add", "Subtract", "Multiply", "Maximum", "Minimum"), _MERGE),
    "Relu": passing.Elementwise(lambda _: keras.ops.relu),
}


@dataclass(frozen=True)
class Plan:
    """What may go from a model.

    Attributes:
        graph: The model's graph.
        context: The site of each layer that is understood, and why others are not.
        inputs: A flow for each of the model's inputs; they always stay.
        solution: What is left of each channel.
    """

    graph: Graph
    context: Context
    inputs: list[Flow]
    solution: Solution


def plan(
    model: keras.Model, alive: Callable[[keras.Variable], Bools], constants: bool = True
) -> Plan:
    """Finds the channels of a functional or Sequential model that may go.

    Args:
        model: The model; it is not changed.
        alive: Variable -> bool array of its shape: the weights that count.
        constants: Whether units of constant value may go too, into the next bias.
    """
    graph = trace(model)
    calls = graph.all_calls()
    times = Counter(id(call.layer) for call in calls)
    shared = frozenset(layer for layer, n in times.items() if n > 1)
    masked = any(call.masks for call in calls) or _may_mask(model)
    context = Context(alive, constants, shared, masked)
    inputs = [_input(context, graph.shape(key)) for key in graph.inputs]
    for flow in _run(context, graph, inputs):
        context.channels.forced.append(flow.ids.ravel())
    return Plan(graph, context, inputs, context.channels.solve())


def _is_own(layer: Any) -> bool:
    """Whether its class is Keras's own."""
    return type(layer).__module__.partition(".")[0] == "keras"


def _may_mask(model: keras.Model) -> bool:
    """Whether a layer may mask positions: one made for it, or one that is not Keras's own."""
    return any(
        isinstance(x, L.Masking) or getattr(x, "mask_zero", False) or not _is_own(x)
        for x in sublayers(model)
        if x is not model
    )


def _input(context: Context, shape: Shape) -> Flow:
    """A channel for each number of the input, all of which stay."""
    sizes = tuple(n or 1 for n in shape) or (1,)
    ids = context.channels.fresh(int(np.prod(sizes))).reshape(sizes)
    context.channels.present.append(ids.ravel())
    return Flow(shape, ids, np.full(sizes, np.nan))


def _run(context: Context, graph: Graph, inputs: list[Flow]) -> list[Flow]:
    """Applies the rules to all calls; returns the flows of the graph's outputs."""
    flows = dict(zip(graph.inputs, inputs, strict=True))
    for call in graph.calls:
        found = [flows[key] for key in call.inputs]
        context.channels.forced += [flows[key].ids.ravel() for key in call.masks]
        try:
            outputs = _called(context, graph, call, found)
        except NotUnderstoodError as error:
            outputs = _left(context, graph, call, found, str(error))
        flows.update(zip(call.outputs, outputs, strict=True))
    return [flows[key] for key in graph.outputs]


def _called(context: Context, graph: Graph, call: Call, inputs: list[Flow]) -> list[Flow]:
    needs(id(call.layer) not in context.rigid, "it is left whole at another call")
    inner = graph.nested.get(id(call.layer))
    if inner is not None:
        _check_entry(graph, call, inner)
        return _nested(context, inner, inputs)
    rule = _rule(call.layer)
    _check_arguments(call, rule.options)
    return [rule.flow(context, call.layer, inputs, graph.shape(call.outputs[0]))]


def _check_arguments(call: Call, options: frozenset[str]) -> None:
    extras = call.extras(options)
    needs(not extras, f"it is called with {', '.join(extras)}")


def _check_entry(graph: Graph, call: Call, inner: Graph) -> None:
    """A nested model is understood where it is called just as it was made."""
    _check_arguments(call, frozenset())
    if len(call.inputs) > 1 or len(inner.inputs) > 1:
        try:
            keras.tree.assert_same_paths(call.args[0], inner.model.input)
        except ValueError:
            raise NotUnderstoodError("its inputs are not given in its own order") from None
    for given, own in zip(call.inputs, inner.inputs, strict=True):
        fits = _fits(graph.shape(given), inner.shape(own))
        needs(fits, "it is called on another shape than it was made for")
        dtypes = {graph.tensors[given].dtype, inner.tensors[own].dtype}
        cast = len(dtypes) > 1 and not all("float" in dtype for dtype in dtypes)
        needs(not cast, "it is called on another dtype than it was made for")


def _fits(shape: Shape, made_for: Shape) -> bool:
    return len(shape) == len(made_for) and all(
        b is None or a == b for a, b in zip(shape, made_for, strict=True)
    )


def _nested(context: Context, inner: Graph, inputs: list[Flow]) -> list[Flow]:
    """A nested model, run in place; what goes into it must agree at every call."""
    before = context.entries.setdefault(id(inner.model), inputs)
    for first, x in zip(before, inputs, strict=True):
        if first is not x and first.ids.shape[-1] == x.ids.shape[-1]:
            context.channels.tie(first, x)
    return _run(context, inner, inputs)


def _left(context: Context, graph: Graph, call: Call, inputs: list[Flow], why: str) -> list[Flow]:
    """A layer stays whole at all its calls, with all that it reads and gives."""
    if any(graph.tensors[key].dtype != "bool" for key in call.outputs):
        context.left.setdefault(call.layer.name, why)
    inner = graph.nested.get(id(call.layer))
    flows = list(inputs)
    for layer in [call.layer, *(c.layer for c in (inner.all_calls() if inner else []))]:
        context.rigid.add(id(layer))
        site = context.sites.get(id(layer))
        flows += [*site.inputs, site.output] if site else []
        flows += context.entries.get(id(layer), [])
    context.channels.forced += [x.ids.ravel() for x in flows]
    return [_opaque(context, graph.shape(key)) for key in call.outputs]


def _rule(layer: Any) -> Rule:
    rule = RULES.get(type(layer))
    if rule is None and not isinstance(layer, keras.layers.Layer) and _is_own(layer):
        rule = _OPERATIONS.get(type(layer).__name__)
    if rule is None:
        raise NotUnderstoodError(f"no rule for {type(layer).__name__}")
    return rule


def _opaque(context: Context, shape: Shape) -> Flow:
    ids: Ids = context.channels.fresh(int(shape[-1] or 1) if shape else 1)
    context.channels.forced.append(ids)
    rank = max(1, len(shape))
    return Flow(shape, per_channel(ids, rank), per_channel(context.unknown(len(ids)), rank))
