"""All subsets of the candidates, smallest first, until one is within tolerance."""

import math
from collections.abc import Iterator
from itertools import chain, combinations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
Bools = NDArray[np.bool_]

BLOCK = 1 << 21  # sums held at once; a few arrays of this many float64
_MOST_SUBSETS = 1 << 18


def blocks(items: Indices, width: int) -> Iterator[Indices]:
    """`items` in parts, so that a part with `width` numbers for each fits a block."""
    step = max(1, BLOCK // width)
    return (items[start : start + step] for start in range(0, len(items), step))


def sums_of(candidates: Floats, chosen: Bools) -> Floats:
    """What the chosen candidates of each row add up to: one order of adding for all."""
    return np.asarray(np.where(chosen, candidates, 0.0).sum(axis=-1))


def by_size(
    targets: Floats, sets: Floats, set_of: Indices, tolerance: float
) -> tuple[Bools, Indices]:
    """The smallest subset within tolerance of each target; of one size, the nearest.

    Stops at the size where a search of all subsets would cost more than to meet in the
    middle.

    Args:
        targets: Shape (targets,).
        sets: Shape (sets, n): the candidates.
        set_of: Shape (targets,): the row of `sets` that a target takes its candidates from.
        tolerance: Float, 0 or more.

    Returns:
        Tuple of the chosen candidates, shape (targets, n), and the positions of targets
        for which no size that was searched had a subset.

    Example:

    >>> chosen, left = by_size(
    ...     np.array([0.0, 0.5, 9.0]), np.array([[0.2, 0.3]]), np.zeros(3, int), 0.01
    ... )
    >>> chosen.tolist(), left.tolist()
    ([[False, False], [True, True], [False, False]], [2])
    """
    n = sets.shape[1]
    chosen = np.zeros((len(targets), n), bool)
    left = np.arange(len(targets))
    for size in range(n + 1):
        if not left.size or math.comb(n, size) > min(8 << (n + 1) // 2, _MOST_SUBSETS):
            break
        subsets = _subsets(n, size)
        parts = [
            _nearest(targets[part], sets[set_of[part]], subsets)
            for part in blocks(left, len(subsets))
        ]
        found = np.concatenate(parts)
        within = np.abs(sums_of(sets[set_of[left]], found) - targets[left]) <= tolerance
        chosen[left[within]] = found[within]
        left = left[~within]
    return chosen, left


def _subsets(n: int, size: int) -> Indices:
    flat = np.fromiter(chain.from_iterable(combinations(range(n), size)), np.intp)
    return flat.reshape(math.comb(n, size), size)


def _nearest(targets: Floats, candidates: Floats, subsets: Indices) -> Bools:
    """The members of the subset with the nearest sum, as bools."""
    off = np.repeat(-targets[:, None], len(subsets), axis=1)
    for column in subsets.T:
        off += np.take(candidates, column, axis=1)
    nearest = np.abs(off, out=off).argmin(axis=1)
    members = np.zeros(candidates.shape, bool)
    np.put_along_axis(members, subsets[nearest], True, axis=1)
    return members
