"""Random weights to search in: how large they are and how they are drawn."""

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lottery import weights as keras_weights
from keras_lottery.masks import Array

DRAWS = ("signed_constant", "kaiming_normal", "kaiming_uniform")
_L = keras.layers
_TRANSPOSED = (_L.Conv1DTranspose, _L.Conv2DTranspose, _L.Conv3DTranspose)
_DEPTHWISE = (_L.DepthwiseConv1D, _L.DepthwiseConv2D)


def check_weights(name: Any, drawn: bool = False) -> None:
    """Raises `ValueError` unless it names a way to get weights.

    Args:
        name: What the user gave.
        drawn: Whether the weights must be drawn, so that `"keep"` will not do.
    """
    valid = list(DRAWS) if drawn else [*DRAWS, "keep"]
    if name not in valid:
        raise ValueError(f"`weights` must be one of {valid}. Received: {name!r}")


def draw(name: str, shape: tuple[int, ...], fan_in: int, rng: np.random.Generator) -> Array:
    """Weights of variance 2 / fan_in.

    Args:
        name: `"signed_constant"`, `"kaiming_normal"` or `"kaiming_uniform"`.
        shape: Of the weight.
        fan_in: Input connections of one unit, before any is pruned.
        rng: NumPy generator.

    Returns:
        float32 array.

    Source: Ramanujan et al., 1911.13299, section 4.1.

    Example:

    >>> np.abs(draw("signed_constant", (2, 1), 2, np.random.default_rng(0))).tolist()
    [[1.0], [1.0]]
    """
    sigma = math.sqrt(2 / fan_in)
    if name == "kaiming_normal":
        return np.asarray(rng.normal(0, sigma, shape), np.float32)
    if name == "kaiming_uniform":
        return np.asarray(rng.uniform(-1, 1, shape) * sigma * math.sqrt(3), np.float32)
    return np.where(rng.random(shape) < 0.5, -sigma, sigma).astype(np.float32)


def draw_tensor(name: str, fan_in: int, uniform: Any) -> Any:
    """As `draw`, from a float32 tensor of draws from [0, 1).

    Example:

    >>> draw_tensor("signed_constant", 2, tf.constant([0.1, 0.9])).numpy().tolist()
    [-1.0, 1.0]
    """
    sigma = math.sqrt(2 / fan_in)
    if name == "kaiming_normal":
        return sigma * math.sqrt(2) * tf.math.erfinv(2 * tf.maximum(uniform, 2.0**-24) - 1)
    if name == "kaiming_uniform":
        return sigma * math.sqrt(3) * (2 * uniform - 1)
    return tf.where(uniform < 0.5, -sigma, sigma)


def fans(model: keras.layers.Layer, variables: keras_weights.Variables) -> tuple[int, ...]:
    """The input connections of a unit, for each of the variables.

    Example:

    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 5)])
    >>> fans(model, keras_weights.prunable(model))
    (75,)
    """
    held_by = keras_weights.owners(model)
    return tuple(_fan_in(v.shape, held_by.get(id(v), [])) for v in variables.values())


def _fan_in(shape: tuple[int, ...], owners: list[keras.layers.Layer]) -> int:
    for layer in owners:
        if isinstance(layer, _L.EinsumDense):
            _, kernel, output = layer.equation.replace("->", ",").split(",")
            return math.prod(n for n, axis in zip(shape, kernel, strict=True) if axis not in output)
        if isinstance(layer, _TRANSPOSED):
            return math.prod(shape[:-2]) * shape[-1]
        if isinstance(layer, _DEPTHWISE):
            return math.prod(shape[:-2])
    return math.prod(shape[:-1])
