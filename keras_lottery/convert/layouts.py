"""How a Keras layer stores what a torch module stores: names, axes, order of rows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers as L
from numpy.typing import NDArray

from keras_lottery import weights
from keras_lottery.convert.states import ROLES
from keras_lottery.masks import Array, Path

_TORCH_NAME = {
    **dict.fromkeys(("kernel", "gamma", "embeddings"), "weight"),
    **dict.fromkeys(("bias", "beta"), "bias"),
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_DEPTHWISE = (L.DepthwiseConv1D, L.DepthwiseConv2D)
_CONVERTED = (
    *(L.Dense, L.Conv1D, L.Conv2D, L.Conv3D, *_DEPTHWISE),
    *(L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose, L.Embedding),
    *(L.BatchNormalization, L.LayerNormalization, L.GroupNormalization),
)


@dataclass
class Layout:
    """One Keras layer as a torch module would store it.

    Attributes:
        path: Path of the layer, `"sequential/dense"`.
        layer: The layer.
        paths: Dict of torch role (`"weight"`, `"bias"`, ...) to the path of the variable.
        variables: Dict of the same roles to the variables.
        flattened: Shape `(height, width, channels)` of the tensor that was flattened before
            the layer, or None.
    """

    path: Path
    layer: keras.layers.Layer
    paths: dict[str, Path]
    variables: dict[str, keras.Variable]
    flattened: tuple[int, ...] | None = None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Torch role to the shape that torch gives it."""
        return {r: self._torch_shape(r) for r in ROLES if r in self.variables}

    def to_keras(self, role: str, array: Array) -> Array:
        """An array of torch's layout in Keras's; every value is only moved."""
        if self._is_kernel(role):
            if isinstance(self.layer, _DEPTHWISE):
                *space, channels, multiplier = self.variables[role].shape
                array = np.moveaxis(array.reshape(channels, multiplier, *space), (0, 1), (-2, -1))
            else:
                array = array.transpose(*range(2, array.ndim), 1, 0)
        return np.ascontiguousarray(array[self._rows()] if self._by_row(role) else array)

    def to_torch(self, role: str, array: Array) -> Array:
        """The reverse of `to_keras`."""
        if self._by_row(role):
            array = array[np.argsort(self._rows())]
        if self._is_kernel(role):
            last = array.ndim - 1
            if isinstance(self.layer, _DEPTHWISE):
                array = np.moveaxis(array, (-2, -1), (0, 1)).reshape(self._torch_shape(role))
            else:
                array = array.transpose(last, last - 1, *range(last - 1))
        return np.ascontiguousarray(array)

    def _is_kernel(self, role: str) -> bool:
        return bool(self.variables[role].name == "kernel")

    def _by_row(self, role: str) -> bool:
        """Whether the values of `role` belong to the entries of the flattened tensor."""
        normalizes = not isinstance(self.layer, L.Dense)
        return self.flattened is not None and (normalizes or self._is_kernel(role))

    def _rows(self) -> NDArray[np.intp]:
        """Keras's row i is torch's row `_rows()[i]`: (h, w, c) against (c, h, w)."""
        *space, channels = self.flattened or (0,)
        order = np.arange(math.prod(space) * channels).reshape(channels, *space)
        return np.moveaxis(order, 0, -1).ravel()

    def _torch_shape(self, role: str) -> tuple[int, ...]:
        shape = tuple(self.variables[role].shape)
        if not self._is_kernel(role):
            return shape
        *space, first, second = shape
        if isinstance(self.layer, _DEPTHWISE):
            return (first * second, 1, *space)
        return (second, first, *space)


def of_model(model: keras.Model, flattened: Mapping[int, tuple[int, ...]]) -> list[Layout]:
    """The layouts of all layers of `model` that have weights, in the model's order.

    Args:
        model: A built Keras 3 model.
        flattened: Dict of a layer's id to the shape that was flattened before it.

    Raises:
        ValueError: If a layer with weights is of a kind that is not converted; names it.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), L.Dense(3)])
    >>> of_model(model, {})[0].shapes
    {'weight': (3, 4), 'bias': (3,)}
    """
    held_by = weights.owners(model)
    found: dict[int, Layout] = {}
    for path, variable in weights.all_weights(model).items():
        owner, name = held_by.get(id(variable), [None])[0], variable.name
        if not isinstance(owner, _CONVERTED) or name not in _TORCH_NAME:
            kind = type(owner).__name__
            raise ValueError(
                f"The weight {path!r} belongs to a layer of the class {kind}, which is not "
                f"converted. Converted are: {', '.join(c.__name__ for c in _CONVERTED)}."
            )
        layout = found.setdefault(
            id(owner),
            Layout(path.rpartition("/")[0], owner, {}, {}, flattened.get(id(owner))),
        )
        layout.paths[_TORCH_NAME[name]] = path
        layout.variables[_TORCH_NAME[name]] = variable
    return list(found.values())
