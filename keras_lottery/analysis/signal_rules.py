"""Which layer a signal passes how: a rule for each kind, and those of layers without kernels."""

from typing import Any

import keras

from keras_lottery.analysis import kernel_rules
from keras_lottery.analysis.signals import Rule, Signal, activated, channels_last, spread
from keras_lottery.compaction.rules import needs

L = keras.layers
ops = keras.ops


def _pooled(signal: Signal, x: Any) -> Any:
    layer = signal.layer
    return ops.average_pool(
        x, layer.pool_size, layer.strides, layer.padding, data_format="channels_last"
    )


def _global(signal: Signal) -> Any:
    first = getattr(signal.layer, "data_format", "channels_last") == "channels_first"
    x = signal.x
    axes = tuple(range(2, x.ndim)) if first else tuple(range(1, x.ndim - 1))
    return ops.mean(x, axis=axes, keepdims=signal.layer.keepdims)


def _upsampled(signal: Signal) -> Any:
    kind = getattr(signal.layer, "interpolation", "nearest")
    needs(kind in ("nearest", "bilinear"), "its weights may be negative")
    return as_it_is(signal)


def _batch_norm(signal: Signal) -> Any:
    layer, x = signal.layer, signal.x
    if not layer.scale:
        return x
    shape = [1] * x.ndim
    shape[layer.axis] = -1
    return x * ops.reshape(signal.weight(layer.gamma), shape)


def _normalized(signal: Signal) -> Any:
    axes = signal.layer.axis
    return spread(signal.x, tuple(axes) if isinstance(axes, (list, tuple)) else axes)


def _activation(signal: Signal) -> Any:
    return activated(signal.layer.activation, signal.x)


def _softmax(signal: Signal) -> Any:
    return spread(signal.inputs[0], signal.layer.axis)


def _same(signal: Signal) -> Any:
    return signal.x


def _merged(signal: Signal) -> Any:
    """Sums, products, maxima of tensors, element by element; constants do not count."""
    return sum(signal.inputs[1:], signal.inputs[0])


def as_it_is(signal: Signal) -> Any:
    """The layer itself, which only moves, adds or averages numbers."""

    def given(value: Any) -> Any:
        return signal.tensors[id(value)] if isinstance(value, keras.KerasTensor) else value

    call = signal.call
    args, kwargs = keras.tree.map_structure(given, (call.args, call.kwargs))
    return call.layer.call(*args, **kwargs)


def _each(names: str, dimensions: str = "123") -> list[type]:
    """Layers of Keras by name, where they exist: `"Conv Cropping"`, each with 1D, 2D, 3D."""
    found = [getattr(L, f"{name}{d}D", None) for name in names.split() for d in dimensions]
    return [layer for layer in found if layer is not None]


RULES: dict[type, Rule] = {
    L.Dense: kernel_rules.dense,
    L.EinsumDense: kernel_rules.einsum,
    L.Embedding: kernel_rules.embedding,
    L.MultiHeadAttention: kernel_rules.attention,
    L.BatchNormalization: _batch_norm,
    L.Activation: _activation,
    L.Softmax: _softmax,
    **dict.fromkeys(_each("Conv"), channels_last(kernel_rules.conv)),
    **dict.fromkeys(
        [getattr(L, f"Conv{d}DTranspose") for d in "123"], channels_last(kernel_rules.transposed)
    ),
    **dict.fromkeys(_each("DepthwiseConv"), channels_last(kernel_rules.depthwise)),
    **dict.fromkeys(_each("SeparableConv"), channels_last(kernel_rules.separable)),
    **dict.fromkeys(_each("MaxPooling AveragePooling"), channels_last(_pooled)),
    **dict.fromkeys(_each("GlobalMaxPooling GlobalAveragePooling"), _global),
    **dict.fromkeys(_each("UpSampling"), _upsampled),
    **dict.fromkeys((L.LayerNormalization, L.RMSNormalization, L.UnitNormalization), _normalized),
    **dict.fromkeys((L.SimpleRNN, L.LSTM, L.GRU), kernel_rules.recurrent),
    **dict.fromkeys(_each("Cropping ZeroPadding"), as_it_is),
    **dict.fromkeys((L.Flatten, L.Reshape, L.Permute, L.RepeatVector, L.Concatenate), as_it_is),
    **dict.fromkeys(
        (L.Add, L.Subtract, L.Multiply, L.Average, L.Maximum, L.Minimum), _merged
    ),
    **dict.fromkeys(
        (
            L.ReLU, L.LeakyReLU, L.ELU, L.PReLU, L.Dropout, L.AlphaDropout, L.GaussianDropout,
            L.GaussianNoise, L.ActivityRegularization, L.Identity, L.Rescaling,
            *_each("SpatialDropout"),
        ),
        _same,
    ),
}  # fmt: skip

# Keras operations that `x + y` and `keras.ops.relu(x)` put into a graph, by class name.
OPERATIONS: dict[str, Rule] = {
    **dict.fromkeys(
        ("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Maximum", "Minimum"), _merged
    ),
    **dict.fromkeys(
        ("Relu", "Relu6", "Sigmoid", "Tanh", "Gelu", "Silu", "Elu", "Selu", "LeakyRelu", "Softplus",
         "Absolute", "Negative", "Exp", "Sqrt", "Square", "Clip", "Cast"), _same
    ),
    **dict.fromkeys(
        ("Reshape", "Transpose", "GetItem", "Concatenate", "Stack", "Squeeze", "ExpandDims",
         "Sum", "Mean", "Flip", "Moveaxis", "Swapaxes", "Repeat", "Tile", "Ravel"), as_it_is
    ),
}  # fmt: skip
