"""Which layers of a target have a random counterpart, and what that looks like in Keras."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_lottery import weights
from keras_lottery.compaction.tracing import is_graph
from keras_lottery.masks import Array

KERNELS = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)


def leaves(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a graph, those of nested graphs in the place of these."""
    for layer in model.layers:
        if is_graph(layer):
            yield from leaves(layer)
        else:
            yield layer


def targets(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """The layers to approximate, by name; a name that comes twice gets `:2`.

    Raises:
        ValueError: If a layer with a kernel is none that can be approximated, or there is none.
    """
    named: dict[str, keras.layers.Layer] = {}
    for layer in leaves(model):
        if type(layer) in KERNELS:
            _check(layer)
            name, n = layer.name, 1
            if any(layer is other for other in named.values()):
                continue
            while name in named:
                n += 1
                name = f"{layer.name}:{n}"
            named[name] = layer
        elif _has_kernel(layer):
            raise ValueError(
                f"Cannot approximate the layer {layer.name!r} ({type(layer).__name__}). {_KNOWN}"
            )
    if not named:
        raise ValueError(f"The model {model.name!r} has no layer to approximate. {_KNOWN}")
    return named


_KNOWN = (
    "What can be approximated are Dense and Conv1D, Conv2D, Conv3D (one group, channels last); "
    "layers without kernels and normalizations are copied."
)


def _has_kernel(layer: keras.layers.Layer) -> bool:
    if type(layer).__name__.endswith("Normalization"):
        return False
    return any(len(v.shape) >= 2 for v in layer.weights)


def _check(layer: Any) -> None:
    if layer.__class__ is not keras.layers.Dense:
        if layer.groups != 1 or layer.data_format != "channels_last":
            raise ValueError(
                f"Cannot approximate the layer {layer.name!r}: it has {layer.groups} groups and "
                f"the data format {layer.data_format!r}. {_KNOWN}"
            )
        if layer.use_bias:
            bias_tap(layer)
    bad = weights.not_finite({v.path: v.numpy() for v in layer.weights})
    if bad:
        raise ValueError(f"Cannot approximate NaN or Inf, found in {bad}.")


def kernel_of(layer: Any) -> Array:
    """The layer's kernel as (taps, inputs, outputs), float64."""
    kernel = keras.ops.convert_to_numpy(layer.kernel).astype(np.float64)
    return np.asarray(kernel.reshape(-1, *kernel.shape[-2:]))


def bias_tap(layer: Any) -> int:
    """The tap of a window, as a flat index, that never reads padding; 0 for Dense.

    Raises:
        ValueError: If padding reaches every tap.
    """
    if isinstance(layer, keras.layers.Dense):
        return 0
    sides = zip(layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
    taps = [_inner_tap(*side, layer.padding) for side in sides]
    if any(tap is None for tap in taps):
        raise ValueError(
            f"Cannot approximate the bias of {layer.name!r}: with padding={layer.padding!r}, "
            f"kernel_size={layer.kernel_size} and dilation_rate={layer.dilation_rate} every "
            "position of the window meets padding somewhere. Use an odd kernel size, "
            'padding="valid", or no bias.'
        )
    return int(np.ravel_multi_index([int(tap or 0) for tap in taps], layer.kernel_size))


def _inner_tap(size: int, stride: int, dilation: int, padding: str) -> int | None:
    """The first position along one side that lies within inputs of every length."""
    reach = (size - 1) * dilation + 1
    lengths = range(reach if padding == "valid" else 1, 4 * stride * reach + 2)
    for tap in range(size):
        if all(_is_inside(tap * dilation, n, stride, reach, padding) for n in lengths):
            return tap
    return None


def _is_inside(offset: int, length: int, stride: int, reach: int, padding: str) -> bool:
    if padding == "valid":
        return True
    last = (math.ceil(length / stride) - 1) * stride
    left = max(last + reach - length, 0) // 2 if padding == "same" else reach - 1
    return offset - left >= 0 and last + offset - left < length


def two_layers(layer: Any, units: int, structure: str) -> keras.Sequential:
    """An untrained pair with the input, output and name of `layer`."""
    hidden = {
        "name": f"{layer.name}_hidden",
        "activation": "relu" if structure == "relu" else None,
        "use_bias": layer.use_bias,
        "dtype": layer.dtype_policy,
    }
    out = {**hidden, "name": layer.name, "activation": layer.activation}
    if isinstance(layer, keras.layers.Dense):
        pair: Sequence[Any] = [
            keras.layers.Dense(units, **hidden),
            keras.layers.Dense(layer.units, **out),
        ]
    else:
        window = {"strides": layer.strides, "padding": layer.padding}
        out |= {**window, "dilation_rate": layer.dilation_rate}
        pair = [
            type(layer)(units, 1, **hidden),
            type(layer)(layer.filters, layer.kernel_size, **out),
        ]
    return keras.Sequential(pair, name=layer.name)
