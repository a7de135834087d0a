"""How few bytes hold the places of a weight's non-zeros, and how TensorFlow gets them back.

The places are a row of moves through the weight: n > 0 says that here is a non-zero, and goes
on by n elements; n < 0 only goes on, by -n elements. A table gives the moves that each value
of a byte stands for, and is made for the weight at hand by byte pair encoding: while a value
is free, it comes to stand for the pair of values that is most frequent next to each other. So
the bytes come near the entropy bound at any density, and below it where the pruning has a
structure: whole channels, blocks, N of M.

A non-zero is an element with a bit set, so -0.0 and every NaN come back as they were.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_lottery.masks import Array

Codes = NDArray[np.uint8]

# Moves of up to 64 elements are one value each; longer ones skip 64 * 4**k elements first.
_NEAR, _SKIPS, _VALUES = 64, 13, 256
_MOST_MOVES, _PAIRS = 8, 3


@dataclass(frozen=True)
class Coded:
    """A flat array as its non-zeros and their places.

    Attributes:
        table: int32 array of a row of moves for each value of a byte, filled up with 0;
            `None` if every element is stored, since that takes fewer bytes.
        codes: uint8 array: rows of `table`.
        values: The non-zeros in their order.
        size: How many elements the array has.
    """

    table: NDArray[np.int32] | None
    codes: Codes
    values: Array
    size: int

    @property
    def nbytes(self) -> int:
        """Bytes of codes and values; the table is part of the graph."""
        return self.codes.nbytes + self.values.nbytes


def encode(array: Array) -> Coded:
    """The non-zeros of an array and their places.

    Args:
        array: Array of any shape, of a dtype of 1, 2, 4 or 8 bytes.

    Example:

    >>> coded = encode(np.array([0, 0, 5, 0, 6], "float32"))
    >>> coded.table[coded.codes].tolist(), coded.values.tolist()
    ([[-2], [2], [1]], [5.0, 6.0])
    """
    flat = np.ascontiguousarray(array).reshape(-1)
    places = nonzero(flat)
    moves, symbols = np.unique(_moves(places), return_inverse=True)
    rows: list[tuple[int, ...]] = [(move,) for move in moves.tolist()]
    codes = _paired(symbols.astype(np.uint8), rows)
    table = np.zeros((max(1, len(rows)), max(map(len, rows), default=1)), np.int32)
    for filled, row in zip(table, rows, strict=False):
        filled[: len(row)] = row
    if codes.nbytes + places.size * flat.itemsize >= flat.nbytes:
        return Coded(None, np.zeros(0, np.uint8), flat, flat.size)
    return Coded(table, codes, flat[places], flat.size)


def decode(coded: Coded, codes: Any, values: Any) -> Any:
    """The flat array, in operations of TensorFlow.

    Args:
        coded: What the array was coded as; its table and size are used.
        codes: Its codes as a uint8 tensor of any shape.
        values: Its values as a flat tensor of any dtype.

    Raises:
        tf.errors.InvalidArgumentError: When it runs, if there are not as many values as
            places, or a place is not below the size.

    Example:

    >>> coded = encode(np.array([0, 0, 5, 0, 6], "float32"))
    >>> decode(coded, coded.codes, coded.values).numpy().tolist()
    [0.0, 0.0, 5.0, 0.0, 6.0]
    """
    values, first_axis = tf.convert_to_tensor(values), tf.constant(0)
    if coded.table is None:
        return values
    rows = tf.gather(coded.table, tf.cast(codes, tf.int32), axis=first_axis)
    moves = tf.reshape(rows, [-1])
    places = tf.cumsum(tf.abs(moves), axis=first_axis, exclusive=True)
    return tf.raw_ops.SparseToDense(
        sparse_indices=tf.gather(places, tf.where(moves > 0), axis=first_axis),
        output_shape=[coded.size],
        sparse_values=values,
        default_value=np.zeros((), values.dtype.as_numpy_dtype),
    )


def entropy_bound(arrays: Iterable[Array]) -> float:
    """The bytes that random masks of the arrays' densities need at least.

    For each array of n elements n H(density) / 8 for the places, H being the entropy of one
    element's bit, and every non-zero in full.

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


def nonzero(array: Array) -> NDArray[np.intp]:
    """The flat positions of the elements that have a bit set, in ascending order.

    Example:

    >>> nonzero(np.array([[0.0, 2.0], [-0.0, 0.0]])).tolist()
    [1, 2]
    """
    flat = np.ascontiguousarray(array).reshape(-1)
    return np.flatnonzero(flat.view(f"u{flat.dtype.itemsize}"))


def _moves(places: NDArray[np.intp]) -> NDArray[np.intp]:
    """The moves from the first element on to all places."""
    if not places.size:
        return places
    first = places[:1]
    to_first, rest = _skips(first // _NEAR)[1], -(first % _NEAR)
    zeros = np.diff(places, append=places[-1] + 1) - 1
    owners, skips = _skips(zeros // _NEAR)
    order = np.argsort(np.concatenate([np.arange(places.size), owners]), kind="stable")
    moves = np.concatenate([zeros % _NEAR + 1, skips])[order]
    return np.concatenate([to_first, rest[rest < 0], moves])


def _skips(counts: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Moves by `_NEAR` times each count, from its digits to the base of 4; whose they are."""
    far = np.flatnonzero(counts)
    digits = [counts[far] >> 2 * k & 3 for k in range(_SKIPS)]
    moves = [np.full(int(digit.sum()), -_NEAR * 4**k) for k, digit in enumerate(digits)]
    return np.concatenate([np.repeat(far, digit) for digit in digits]), np.concatenate(moves)


def _paired(symbols: Codes, rows: list[tuple[int, ...]]) -> Codes:
    """The symbols with frequent pairs replaced; `rows` grows by what each new one stands for.

    Source: Gage, A New Algorithm for Data Compression, 1994.
    """
    while len(rows) < _VALUES and symbols.size > 1:
        pairs = symbols[:-1].astype(np.intp) * _VALUES + symbols[1:]
        lengths = np.array([len(row) for row in rows])
        counts = np.bincount(pairs, minlength=_VALUES**2).reshape(_VALUES, _VALUES)
        known = counts[: len(rows), : len(rows)]
        known[lengths[:, np.newaxis] + lengths > _MOST_MOVES] = 0
        first, second = np.unravel_index(known.argmax(), known.shape)
        if known[first, second] < _PAIRS:
            break
        symbols = _replaced(symbols, int(first), int(second), len(rows))
        rows.append(rows[first] + rows[second])
    return symbols


def _replaced(symbols: Codes, first: int, second: int, new: int) -> Codes:
    """The symbols with each pair replaced by `new`; in a run of one symbol, from its start."""
    hits = (symbols[:-1] == first) & (symbols[1:] == second)
    if first == second:
        index = np.arange(hits.size)
        starts = hits & ~np.concatenate([[False], hits[:-1]])
        hits &= (index - np.maximum.accumulate(np.where(starts, index, 0))) % 2 == 0
    at = np.flatnonzero(hits)
    symbols = symbols.copy()
    symbols[at] = new
    return np.delete(symbols, at + 1)
