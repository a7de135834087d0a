"""A layer's weights as connections from input units to output units."""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

L = keras.layers
_TRANSPOSED = (L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose)
_DEPTHWISE = (L.DepthwiseConv1D, L.DepthwiseConv2D)

Bools = NDArray[np.bool_]


def connections(mask: Bools, layer: Any = None, name: str = "kernel") -> Bools:
    """A mask as a bool array (positions in the kernel, input units, output units).

    The last axis of a weight is taken as its output units, the one before as its input
    units, those before as positions. Other layers as they compute: a transposed convolution
    has the two exchanged; a depthwise one (channels in, multiplier) connects each channel
    with units of its own, a grouped one each group; in an `EinsumDense` the axes that the
    output has too are its units. A weight of one axis has one input unit.

    Args:
        mask: Bool array of the weight's shape.
        layer: The layer that holds it; `None` for one of another kind.
        name: The weight's name in the layer.

    Example: two groups of two channels in, three out each.

    >>> layer = keras.layers.Conv2D(6, 1, groups=2)
    >>> connections(np.ones((1, 1, 2, 6), bool), layer)[0].astype(int)
    array([[1, 1, 1, 0, 0, 0],
           [1, 1, 1, 0, 0, 0],
           [0, 0, 0, 1, 1, 1],
           [0, 0, 0, 1, 1, 1]])
    """
    if isinstance(layer, L.EinsumDense) and name == "kernel":
        return _of_axes(mask, unit_axes(mask.ndim, layer, name))
    if mask.ndim < 2:
        return mask.reshape(1, 1, -1)
    flat = mask.reshape(-1, *mask.shape[-2:])
    if isinstance(layer, _TRANSPOSED):
        return flat.swapaxes(-1, -2)
    if isinstance(layer, _DEPTHWISE) or name == "depthwise_kernel":
        columns = flat.reshape(len(flat), 1, -1)
        return _blocks(columns, flat.shape[1])
    return _blocks(flat, getattr(layer, "groups", 1) if name == "kernel" else 1)


def unit_axes(rank: int, layer: Any = None, name: str = "kernel") -> tuple[int, ...]:
    """The axes of a weight that number the output units of its layer, as `connections` has them.

    Args:
        rank: The weight's number of axes.
        layer: The layer that holds it; `None` for one of another kind.
        name: The weight's name in the layer.

    Example:

    >>> unit_axes(4), unit_axes(4, keras.layers.Conv2DTranspose(3, 2))
    ((3,), (2,))
    """
    if isinstance(layer, L.EinsumDense) and name == "kernel":
        held, output = layer.equation.split(",")[1].split("->")
        return tuple(i for i, label in enumerate(held) if label in output)
    if rank >= 2 and (isinstance(layer, _DEPTHWISE) or name == "depthwise_kernel"):
        return (rank - 2, rank - 1)
    return (rank - 2 if rank >= 2 and isinstance(layer, _TRANSPOSED) else rank - 1,)


def _blocks(kernel: Bools, groups: int) -> Bools:
    """(positions, inputs of a group, outputs) with each group in a block of its own."""
    if groups == 1:
        return kernel
    positions, rows, columns = kernel.shape
    width = columns // groups
    full = np.zeros((positions, rows * groups, columns), bool)
    for g in range(groups):
        own = slice(g * width, (g + 1) * width)
        full[:, g * rows : (g + 1) * rows, own] = kernel[:, :, own]
    return full


def _of_axes(mask: Bools, outs: tuple[int, ...]) -> Bools:
    ins = [i for i in range(mask.ndim) if i not in outs]
    size = int(np.prod([mask.shape[i] for i in outs], dtype=int))
    return mask.transpose(*ins, *outs).reshape(1, -1, size)
