"""Which alive weights lie on a path from an input of the model to an output."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_lottery import weights
from keras_lottery.analysis.pairing import masks_of
from keras_lottery.analysis.signal_rules import OPERATIONS, RULES
from keras_lottery.analysis.signals import Rule, Signal, binary
from keras_lottery.analysis.values import as_masks
from keras_lottery.compaction.rules import NotUnderstoodError
from keras_lottery.compaction.tracing import Call, Graph, is_graph, trace
from keras_lottery.enforcement import Enforcement
from keras_lottery.masks import Masks
from keras_lottery.summary import alive
from keras_lottery.tickets import Ticket

UNKNOWN_SIZE = 64


def effective_masks(model: keras.Model, masks: Masks | Ticket | Enforcement | None = None) -> Masks:
    """The weights that are alive and on a path of alive weights from an input to an output.

    Only these can carry anything from the inputs to the outputs. An alive weight of a unit
    that nothing feeds, or that nothing reads, is alive in vain.

    - A path leads through units, not through values: a unit that has only a bias does not
      begin one. Weights that are no connections (biases, slopes) stay as they are.
    - A weight of a convolution is on a path if it is at some position of the image; one that
      only ever meets the zeros of the padding is not.
    - What an activation function, a normalization or an attention mixes is connected: softmax
      and LayerNormalization along their axis, an unknown function of the user's everywhere.
      Gates of a recurrent unit count as one connection.
    - A layer without a rule (a custom or a subclassed one, a wrapper such as `Bidirectional`)
      connects everything with everything, so that the result can only be too large.
    - Unknown sizes of inputs (time, height, width) are taken as 64.

    Args:
        model: A built functional or Sequential model, also with nested ones; not changed.
        masks: Dict of path to bool array, True = alive; or a ticket, or what `kl.prune`
            returns. Default: the enforced masks, else where the prunable weights are not 0.
            Weights without a mask are alive.

    Returns:
        Dict of the same paths to bool arrays of the same shapes, on the model's path names.

    Raises:
        ValueError: If the model is a subclassed one, whose graph cannot be seen, or the masks
            do not fit it or are not of bools.
        TypeError: If the model is no Keras model.

    Source: "effective" weights as in Zhang & Papyan 2024, "Sparsest Models Elude Pruning";
        the derivative of positive signals as in SynFlow, Tanaka et al., 2006.05467.

    Example: of two hidden units one has no input, so that its outgoing weight is in vain.

    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2), keras.layers.Dense(1)])
    >>> first, second = (layer.kernel.path for layer in model.layers)
    >>> masks = {first: np.array([[True, False]]), second: np.array([[True], [True]])}
    >>> effective_masks(model, masks)[second].tolist()
    [[True], [False]]
    """
    masks = fitted(model, masks)
    if not is_graph(model):
        raise ValueError(
            f"Expected a built functional or Sequential model. Received: {model.name!r} of the "
            f"class {type(model).__name__}, whose graph cannot be seen, so no path can be "
            "followed through it."
        )
    variables = weights.all_variables(model)
    ones = {p: tf.constant(mask, tf.float32) for p, mask in masks.items()}
    by_id = {id(variables[p]): one for p, one in ones.items()}
    with tf.device("CPU:0"), tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(list(ones.values()))
        reached = _reached(trace(model), lambda v: by_id.get(id(v)))
        total = tf.add_n([tf.reduce_sum(y) for y in reached])
    found = tape.gradient(total, ones)
    return {p: m if found[p] is None else m & (found[p].numpy() > 0) for p, m in masks.items()}


def fitted(model: keras.Model, masks: Masks | Ticket | Enforcement | None) -> Masks:
    """Masks as given, by the model's paths and checked against it, or those the model has.

    Raises:
        ValueError: If a path or a shape does not fit the model, or a mask is not of bools.
        TypeError: If the model is no Keras model.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"Expected a built Keras model. Received: {type(model).__name__}")
    if masks is None:
        return alive(model)
    return as_masks(model, masks if isinstance(masks, Ticket) else masks_of(masks))


def _reached(graph: Graph, mask: Callable[[keras.Variable], Any]) -> list[Any]:
    """The signal in each output when there is one in every input."""

    def weight(variable: keras.Variable) -> Any:
        own = mask(variable)
        return tf.ones(variable.shape) if own is None else own

    shapes = [(1, *[n or UNKNOWN_SIZE for n in graph.shape(key)]) for key in graph.inputs]
    return _run(graph, [tf.ones(shape) for shape in shapes], weight)


def _run(graph: Graph, inputs: list[Any], weight: Callable[[keras.Variable], Any]) -> list[Any]:
    """Sends signals through all calls of a graph."""
    tensors = dict(zip(graph.inputs, inputs, strict=True))
    for call in graph.calls:
        signal = Signal(call, tensors, weight)
        inner = graph.nested.get(id(call.layer))
        if inner is not None and _is_entered_in_order(call, inner):
            outputs = _run(inner, signal.inputs, weight)
        else:
            outputs = _passed(graph, signal)
        tensors.update(zip(call.outputs, map(binary, outputs), strict=True))
    return [tensors[key] for key in graph.outputs]


def _is_entered_in_order(call: Call, inner: Graph) -> bool:
    """Whether a nested model gets its inputs as it was made for them."""
    if len(call.inputs) != len(inner.inputs):
        return False
    if len(call.inputs) == 1:
        return True
    try:
        keras.tree.assert_same_paths(call.args[0], inner.model.input)
    except ValueError:
        return False
    return True


def _passed(graph: Graph, signal: Signal) -> list[Any]:
    """What comes out of one layer: by its rule, or everything from everything."""
    shapes = [graph.tensors[key].shape for key in signal.call.outputs]
    try:
        outputs = keras.tree.flatten(_rule(signal.layer)(signal))
    except NotUnderstoodError:
        return _everywhere(signal, shapes)
    return [tf.broadcast_to(y, _sizes(shape, y)) for y, shape in zip(outputs, shapes, strict=True)]


def _sizes(shape: tuple[int | None, ...], y: Any) -> list[int]:
    """The sizes of an output; those that are not known as the signal has them."""
    found = tuple(y.shape)
    own = (1,) * (len(shape) - len(found)) + found
    return [1 if i == 0 else n or own[i] for i, n in enumerate(shape)]


def _rule(layer: Any) -> Rule:
    """The rule for a class of layers, also for its subclasses that compute the same."""
    for kind in type(layer).__mro__:
        if kind in RULES and type(layer).call is kind.call:  # type: ignore[attr-defined]
            return RULES[kind]
    operation = not isinstance(layer, keras.layers.Layer)
    own = type(layer).__module__.partition(".")[0] == "keras"
    if operation and own and type(layer).__name__ in OPERATIONS:
        return OPERATIONS[type(layer).__name__]
    raise NotUnderstoodError(f"no rule for {type(layer).__name__}")


def _everywhere(signal: Signal, shapes: list[Any]) -> list[Any]:
    """Every number out depends on every number in, through every weight."""
    layer, tensors = signal.layer, signal.tensors
    keys = [*signal.call.inputs, *signal.call.masks]
    into = tf.add_n([tf.reduce_mean(tensors[key]) for key in keys])
    own = [signal.weight(v) for v in getattr(layer, "variables", []) if 0 not in v.shape]
    total = binary(into) * (1.0 + sum((tf.reduce_mean(w) for w in own), 0.0))
    if any(None in shape[1:] for shape in shapes):
        shapes = _found_shapes(signal)
    return [tf.broadcast_to(total, [1, *shape[1:]]) for shape in shapes]


def _found_shapes(signal: Signal) -> list[tuple[int, ...]]:
    """The shapes that a layer gives for these inputs."""

    def sized(value: Any) -> Any:
        if not isinstance(value, keras.KerasTensor):
            return value
        return keras.KerasTensor(tuple(signal.tensors[id(value)].shape), value.dtype)

    call = signal.call
    args, kwargs = keras.tree.map_structure(sized, (call.args, call.kwargs))
    found = keras.tree.flatten(call.layer.compute_output_spec(*args, **kwargs))
    return [tuple(y.shape) for y in found]
