"""How far a network may be off when its weights are: intervals carried through its layers.

The layers compute on three batches in one: the target's values, and a lower and an upper end
between which the approximation's values lie. Monotone layers need no rule: what they make of
both ends are the ends of what they give.
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import activations as A
from keras import layers as L
from keras import ops

from keras_lottery.compaction.copying import copy_layer
from keras_lottery.masks import Array
from keras_lottery.strong.subsets import Floats

Errors = Mapping[int, tuple[Floats, Floats]]
_BATCH = 128
_MONOTONE = (
    *(L.InputLayer, L.Flatten, L.Reshape, L.Permute, L.RepeatVector),
    *(L.Dropout, L.SpatialDropout1D, L.SpatialDropout2D, L.SpatialDropout3D, L.GaussianDropout),
    *(L.GaussianNoise, L.ActivityRegularization, L.Identity, L.ReLU, L.LeakyReLU, L.ELU),
    *(L.MaxPooling1D, L.MaxPooling2D, L.MaxPooling3D),
    *(L.AveragePooling1D, L.AveragePooling2D, L.AveragePooling3D),
    *(L.GlobalMaxPooling1D, L.GlobalMaxPooling2D, L.GlobalMaxPooling3D),
    *(L.GlobalAveragePooling1D, L.GlobalAveragePooling2D, L.GlobalAveragePooling3D),
    *(L.ZeroPadding1D, L.ZeroPadding2D, L.ZeroPadding3D),
    *(L.Cropping1D, L.Cropping2D, L.Cropping3D, L.UpSampling1D, L.UpSampling2D, L.UpSampling3D),
    *(L.Add, L.Average, L.Maximum, L.Minimum, L.Concatenate),
)
_MONOTONE_ACTIVATIONS = (
    *(A.linear, A.relu, A.relu6, A.leaky_relu, A.elu, A.selu, A.softplus, A.softsign),
    *(A.sigmoid, A.hard_sigmoid, A.tanh, A.exponential),
)
_SCALING = (L.BatchNormalization, L.Normalization, L.Rescaling)


def largest_difference(model: keras.Model, errors: Errors, x: Any) -> Any:
    """The largest |approximation(x) - model(x)|, elementwise.

    Args:
        model: The target: a built Sequential or functional model.
        errors: The id of each of its Dense and convolution layers to the errors of the kernel,
            shape (1 or 2,) + the kernel's, and of the bias, empty without one.
        x: Inputs, a structure of arrays with a batch dimension.

    Returns:
        A structure of float arrays like the model's outputs.

    Raises:
        ValueError: If a layer is neither monotone nor known.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), L.Dense(1, use_bias=False)])
    >>> off = np.full((1, 2, 1), 0.01)
    >>> errors = {id(model.layers[0]): (off, np.zeros(0))}
    >>> round(largest_difference(model, errors, np.array([[1.0, -2.0]])).item(), 6)
    0.03
    """
    carrying = _carrying(model, errors)
    arrays = keras.tree.map_structure(np.asarray, x)
    count = len(keras.tree.flatten(arrays)[0])
    parts = []
    for start in range(0, count, _BATCH):
        part = keras.tree.map_structure(lambda a, at=start: a[at : at + _BATCH], arrays)
        stacked = keras.tree.map_structure(lambda a: np.concatenate([a, a, a]), part)
        outputs = carrying(stacked, training=False)
        parts.append(keras.tree.map_structure(_reach, outputs))
    return keras.tree.map_structure(lambda *some: np.concatenate(some), *parts)


def _reach(stacked: Any) -> Array:
    value, low, high = np.split(ops.convert_to_numpy(stacked), 3)
    return np.asarray(np.maximum(high - value, value - low))


def _carrying(model: keras.Model, errors: Errors) -> Any:
    """The model with layers that compute on the three batches."""
    copies: list[tuple[Any, Any]] = []

    def carrier(layer: Any) -> Any:
        if id(layer) in errors:
            return _Inexact(layer, *errors[id(layer)])
        if isinstance(layer, (L.Activation, L.Softmax)):
            return _activation_carrier(layer)
        if not isinstance(layer, (*_MONOTONE, *_SCALING)):
            raise ValueError(_unknown(layer, type(layer).__name__))
        copies.append((layer, copy_layer(layer, None)))
        return _Scaling(copies[-1][1]) if isinstance(layer, _SCALING) else copies[-1][1]

    carrying = keras.models.clone_model(model, clone_function=carrier, recursive=True)
    if not carrying.built:
        carrying.build(model.input_shape)
    for old, new in copies:
        new.set_weights(old.get_weights())
    return carrying


def _unknown(layer: Any, what: str) -> str:
    return (
        f"No bound can be carried through the layer {layer.name!r} ({what}): it is not monotone "
        "and has no rule of its own. Compare outputs on inputs of your own instead."
    )


def _activation_carrier(layer: Any) -> Any:
    if isinstance(layer, L.Softmax):
        if layer.axis != -1:
            raise ValueError(_unknown(layer, f"Softmax over axis {layer.axis}"))
        return _Activation(A.softmax, layer)
    return _Activation(layer.activation, layer)


class _Activation(keras.layers.Layer):
    """An activation of the three batches."""

    def __init__(self, function: Any, layer: Any):
        super().__init__(name=layer.name)
        if function not in (*_MONOTONE_ACTIVATIONS, A.softmax):
            raise ValueError(_unknown(layer, getattr(function, "__name__", repr(function))))
        self.function = function

    def call(self, stacked: Any, **_: Any) -> Any:
        if self.function is not A.softmax:
            return self.function(stacked)
        value, low, high = ops.split(stacked, 3)
        top = ops.max(high, axis=-1, keepdims=True)
        low, high = ops.exp(low - top), ops.exp(high - top)
        others_low = ops.sum(low, axis=-1, keepdims=True) - low
        others_high = ops.sum(high, axis=-1, keepdims=True) - high
        ends = [low / (low + others_high), high / (high + others_low)]
        return ops.concatenate([A.softmax(value), *ends])


class _Scaling(keras.layers.Layer):
    """A layer that is monotone for each number, rising or falling."""

    def __init__(self, layer: Any):
        super().__init__(name=layer.name)
        self.layer = layer

    def build(self, input_shape: Any) -> None:
        self.layer.build(input_shape)

    def call(self, stacked: Any, **_: Any) -> Any:
        value, one, other = ops.split(self.layer(stacked, training=False), 3)
        return ops.concatenate([value, ops.minimum(one, other), ops.maximum(one, other)])


class _Inexact(keras.layers.Layer):
    """Dense or convolution of which weights are off by known amounts."""

    def __init__(self, layer: Any, errors: Floats, bias_errors: Floats):
        super().__init__(name=layer.name)
        kernel = ops.convert_to_numpy(layer.kernel)
        self.kernels = [kernel, np.abs(kernel), errors[0], errors[-1]]
        self.linear = [_linear(layer, part) for part in ("exact", "size", "positive", "negative")]
        self.bias = layer.bias.numpy() if layer.use_bias else 0.0
        self.bias_errors = np.float32(bias_errors) if bias_errors.size else 0.0
        self.activation = _Activation(layer.activation, layer)

    def build(self, input_shape: Any) -> None:
        for layer, kernel in zip(self.linear, self.kernels, strict=True):
            layer.build(input_shape)
            layer.kernel.assign(kernel)

    def call(self, stacked: Any, **_: Any) -> Any:
        value, low, high = ops.split(stacked, 3)
        exact, size, positive, negative = self.linear
        middle = exact(value) + self.bias
        reach = size(ops.maximum(high - value, value - low)) + self.bias_errors
        reach += positive(ops.relu(high)) + negative(ops.relu(-low))
        return self.activation(ops.concatenate([middle, middle - reach, middle + reach]))


def _linear(layer: Any, name: str) -> Any:
    """A copy without bias and activation."""
    config = layer.get_config() | {"name": name, "activation": None, "use_bias": False}
    return type(layer).from_config(config)
