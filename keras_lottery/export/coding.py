"""How few bytes hold a weight that is mostly zeros, and how TensorFlow gets it back.

A coding says where the non-zeros are; they follow it in the weight's order:

- `"mask"`: one bit an element, as `np.packbits` gives them;
- `"gap4"` and `"gap8"`: for each non-zero the number of zeros before it since the last one,
  in a field of 4 bits (two a byte, the low half first) or 8. A field of all ones, 15 or 255,
  is no element: it stands for that many zeros.
- `"dense"`: no positions, every element follows.

A non-zero is an element with a bit set, so -0.0 and every NaN come back as they were.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_lottery.masks import Array

Codes = NDArray[np.uint8]
WIDTHS = {"gap4": 4, "gap8": 8}
CODINGS = ("dense", "mask", *WIDTHS)


def nonzero(array: Array) -> NDArray[np.intp]:
    """The flat positions of the elements that have a bit set, in ascending order.

    Example:

    >>> nonzero(np.array([[0.0, 2.0], [-0.0, 0.0]])).tolist()
    [1, 2]
    """
    flat = np.ascontiguousarray(array).reshape(-1)
    return np.flatnonzero(flat.view(f"u{flat.dtype.itemsize}"))


def coded_bytes(array: Array) -> dict[str, int]:
    """The bytes that each coding needs for `array`, positions and elements.

    Args:
        array: Array of any shape and dtype.

    Example:

    >>> coded_bytes(np.array([0, 0, 0, 0, 0, 0, 0, 0, 7], "float32"))
    {'dense': 36, 'mask': 6, 'gap4': 5, 'gap8': 5}
    """
    positions = nonzero(array)
    values = positions.size * array.itemsize
    sizes = {"dense": array.nbytes, "mask": -(-array.size // 8) + values}
    for coding, width in WIDTHS.items():
        fields = positions.size + int(np.sum(_zeros_before(positions) // (2**width - 1)))
        sizes[coding] = -(-fields * width // 8) + values
    return sizes


def stored_bytes(arrays: Iterable[Array]) -> int:
    """The bytes of all arrays, each in its smallest coding.

    Example:

    >>> stored_bytes([np.zeros(800, "float32"), np.ones(2, "float32")])
    8
    """
    return sum(min(coded_bytes(array).values()) for array in arrays)


def entropy_bound(arrays: Iterable[Array]) -> float:
    """The bytes below which random masks of the same densities cannot be stored.

    For each array of n elements: n H(density) / 8 for the positions, H being the entropy of
    one element's bit, and every non-zero in full. No coding that knows nothing but the
    densities can do with less.

    Source: Shannon, A Mathematical Theory of Communication, 1948.

    Example:

    >>> entropy_bound([np.array([0, 1, 0, 1], "float32")])
    8.5
    """
    bound = 0.0
    for array in arrays:
        alive = nonzero(array).size
        for part in (alive, array.size - alive):
            bound += part * np.log2(array.size / part) / 8 if part else 0.0
        bound += alive * array.itemsize
    return float(bound)


def encode(array: Array, coding: str) -> tuple[Codes, Array]:
    """The positions of the non-zeros as bytes, and the non-zeros.

    Args:
        array: Array of any shape and dtype.
        coding: One of `CODINGS`.

    Returns:
        A uint8 array, and a flat array of the dtype of `array`.

    Example:

    >>> codes, values = encode(np.array([0, 0, 5, 6], "float32"), "gap4")
    >>> codes.tolist(), values.tolist()
    ([2], [5.0, 6.0])
    """
    flat = np.ascontiguousarray(array).reshape(-1)
    if coding == "dense":
        return np.zeros(0, np.uint8), flat
    positions = nonzero(flat)
    if coding == "mask":
        mask = np.zeros(flat.size, bool)
        mask[positions] = True
        return np.packbits(mask), flat[positions]
    return _gaps(positions, WIDTHS[coding]), flat[positions]


def decode(codes: Any, values: Any, coding: str, size: int) -> Any:
    """The reverse of `encode`, in TensorFlow's operations.

    Args:
        codes: uint8 tensor, as `encode` gave it.
        values: Flat tensor of any dtype.
        coding: The coding.
        size: How many elements the array has.

    Returns:
        A flat tensor of `size` elements.

    Raises:
        tf.errors.InvalidArgumentError: When it runs, if there are not as many values as
            positions or a position is not below `size`.

    Example:

    >>> decode(*encode(np.array([0, 0, 5, 6], "float32"), "mask"), "mask", 4).numpy().tolist()
    [0.0, 0.0, 5.0, 6.0]
    """
    values = tf.convert_to_tensor(values)
    if coding == "dense":
        return values
    return tf.raw_ops.SparseToDense(
        sparse_indices=_positions(codes, coding),
        output_shape=[size],
        sparse_values=values,
        default_value=tf.zeros([], values.dtype),
    )


def _zeros_before(positions: NDArray[np.intp]) -> NDArray[np.intp]:
    """How many zeros lie between each position and the one before it."""
    return np.diff(positions, prepend=-1) - 1


def _gaps(positions: NDArray[np.intp], width: int) -> Codes:
    escape = 2**width - 1
    escapes, rest = np.divmod(_zeros_before(positions), escape)
    fields = np.full(positions.size + int(escapes.sum()), escape, np.uint8)
    fields[np.cumsum(escapes + 1) - 1] = rest
    if width == 8:
        return fields
    even = np.append(fields, np.full(fields.size % 2, escape, np.uint8))
    return even[::2] | even[1::2] << 4


def _positions(codes: Any, coding: str) -> Any:
    """The positions as an int64 tensor of one or two axes.

    What a byte means is looked up in a table of 256 rows: fewer operations than arithmetic
    takes, and each operation costs time when a SavedModel is loaded.
    """
    bytes_ = np.arange(256, dtype=np.uint8)[:, np.newaxis]
    rows = tf.cast(codes, tf.int32)
    if coding == "mask":
        table = np.unpackbits(bytes_, axis=1).astype(bool)
        return tf.where(tf.reshape(tf.gather(table, rows), [-1]))
    fields = bytes_ if coding == "gap8" else np.hstack([bytes_ & 15, bytes_ >> 4])
    escape = 2 ** WIDTHS[coding] - 1
    # An element moves on by the zeros before it and itself; an escape, negative, moves only.
    table = np.where(fields < escape, fields.astype(np.int64) + 1, -escape)
    moves = tf.reshape(tf.gather(table, rows), [-1])
    return tf.gather(tf.cumsum(tf.abs(moves)), tf.where(moves > 0)) - 1
