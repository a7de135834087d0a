"""How a signal passes the layers that hold kernels."""

from typing import Any

import keras

from keras_lottery.analysis.signals import Signal, activated, binary, check_plain
from keras_lottery.compaction.rules import needs

L = keras.layers
ops = keras.ops


def dense(signal: Signal) -> Any:
    """Sums over the last axis."""
    check_plain(signal.layer)
    y = ops.matmul(signal.x, signal.weight(signal.layer.kernel))
    return activated(signal.layer.activation, y)


def einsum(signal: Signal) -> Any:
    """Sums as the equation says."""
    check_plain(signal.layer)
    y = ops.einsum(signal.layer.equation, signal.x, signal.weight(signal.layer.kernel))
    return activated(signal.layer.activation, y)


def embedding(signal: Signal) -> Any:
    """Every row of the table may be looked up."""
    check_plain(signal.layer)
    return ops.expand_dims(signal.x, -1) * ops.sum(signal.weight(signal.layer.embeddings), 0)


def _padded(layer: Any, x: Any) -> tuple[Any, dict[str, Any]]:
    """The input and the settings of its convolution; causal padding is done beforehand."""
    settings = {"strides": layer.strides, "dilation_rate": layer.dilation_rate}
    if layer.padding != "causal":
        return x, settings | {"padding": layer.padding}
    left = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
    return ops.pad(x, [[0, 0], [left, 0], [0, 0]]), settings | {"padding": "valid"}


def conv(signal: Signal, x: Any) -> Any:
    """A convolution, of groups or not; channels last."""
    layer = signal.layer
    check_plain(layer)
    x, settings = _padded(layer, x)
    y = ops.conv(x, signal.weight(layer.kernel), data_format="channels_last", **settings)
    return activated(layer.activation, y)


def transposed(signal: Signal, x: Any) -> Any:
    """A transposed convolution."""
    layer = signal.layer
    check_plain(layer)
    y = ops.conv_transpose(
        x, signal.weight(layer.kernel), strides=layer.strides, padding=layer.padding,
        output_padding=layer.output_padding, dilation_rate=layer.dilation_rate,
        data_format="channels_last",
    )  # fmt: skip
    return activated(layer.activation, y)


def depthwise(signal: Signal, x: Any) -> Any:
    """A convolution of each channel by itself."""
    layer = signal.layer
    x, settings = _padded(layer, x)
    y = ops.depthwise_conv(x, signal.weight(layer.kernel), data_format="channels_last", **settings)
    return activated(layer.activation, y)


def separable(signal: Signal, x: Any) -> Any:
    """A depthwise convolution, then a pointwise one."""
    layer = signal.layer
    x, settings = _padded(layer, x)
    kernel = signal.weight(layer.depthwise_kernel)
    y = binary(ops.depthwise_conv(x, kernel, data_format="channels_last", **settings))
    kernel = signal.weight(layer.pointwise_kernel)
    y = ops.conv(y, kernel, strides=1, padding="valid", data_format="channels_last")
    return activated(layer.activation, y)


def attention(signal: Signal) -> Any:
    """A key part counts if it differs between positions, a query part if its key part does."""
    layer, inputs = signal.layer, signal.inputs
    needs(2 <= len(inputs) <= 3 and all(x.ndim == 3 for x in inputs), "it has several axes")
    needs(not layer.get_config().get("use_gate"), "it has a gate")
    query, value, key = (*inputs, inputs[1])[:3]

    def project(name: str, x: Any) -> Any:
        dense = getattr(layer, name)
        check_plain(dense)
        return binary(ops.einsum(dense.equation, x, signal.weight(dense.kernel)))

    asked = project("query_dense", query) + (1.0 if layer.use_bias else 0.0)
    told = ops.mean(project("key_dense", key), axis=1, keepdims=True)
    score = binary(ops.mean(asked * told, axis=-1, keepdims=True))
    mixed = ops.mean(project("value_dense", value), axis=1, keepdims=True) * (1.0 + score)
    return project("output_dense", binary(mixed))


def recurrent(signal: Signal) -> Any:
    """A unit's gates count as one; its state goes from step to step."""
    layer, x, cell = signal.layer, signal.x, signal.layer.cell
    needs(not layer.return_state, "it returns its state")

    def joined(variable: keras.Variable) -> Any:
        kernel = signal.weight(variable)
        return binary(ops.sum(ops.reshape(kernel, (kernel.shape[0], -1, cell.units)), 1))

    kernel, again = joined(cell.kernel), joined(cell.recurrent_kernel)
    read = ops.matmul(ops.flip(x, 1) if layer.go_backwards else x, kernel)
    states = [binary(read[:, 0])]
    for step in range(1, x.shape[1]):
        # What a unit holds it keeps; the plain cell forgets it unless its weights say so.
        kept = 0.0 if isinstance(layer, L.SimpleRNN) else states[-1]
        states.append(binary(read[:, step] + ops.matmul(states[-1], again) + kept))
    return ops.stack(states, 1) if layer.return_sequences else states[-1]
