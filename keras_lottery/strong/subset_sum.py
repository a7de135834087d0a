"""Numbers written as sums of some of the random candidates, within a tolerance."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_lottery.strong.meeting import MOST, meet
from keras_lottery.strong.subsets import Bools, Floats, Indices, by_size, sums_of


@dataclass(frozen=True)
class SubsetSums:
    """Which candidates were chosen for each target, and how near their sums are.

    Attributes:
        chosen: Bool array, the targets' shape + (n,), True = the candidate is in the sum.
        sums: Float64 array of the targets' shape: what the chosen candidates add up to.
        errors: Float64 array of the targets' shape: |sum - target|.
        kept: Integer array of the targets' shape: how many candidates were chosen.
        missing: Integer array of shape (number missing, dimensions of the targets): the
            indices of targets without a subset within tolerance. What is chosen for them is
            the nearest subset of all.

    Example:

    >>> found = subset_sum([0.5], [[0.2, 0.3]], tolerance=0.01)
    >>> found.sums.tolist(), found.kept.tolist()
    ([0.5], [2])
    """

    chosen: Bools
    sums: Floats
    errors: Floats
    kept: NDArray[np.int64]
    missing: NDArray[np.int64]


def subset_sum(targets: Any, candidates: Any, tolerance: float, best: bool = False) -> SubsetSums:
    """Finds for each target a subset of its candidates whose sum is within tolerance.

    The smallest subsets come first: none, single ones, pairs, and so on; of one size the
    nearest is taken. What is still missing when a size has more subsets than it would cost to
    meet in the middle gets the nearest of all 2^n sums, whatever its size. The work is
    done in blocks, in float64; beside the arrays given and returned it takes less than
    200 MB for up to 30 candidates.

    Args:
        targets: Array of finite numbers, any shape.
        candidates: Array of finite numbers, shape `targets.shape + (n,)`, n from 1 to 40. A
            dimension of 1 shares candidates along it: `(rows, 1, n)` gives all targets of a
            row the same ones.
        tolerance: Largest allowed |sum - target|, 0 or more.
        best: Whether to take the nearest of all 2^n sums for every target instead. This
            meets in the middle each time: about 0.2 ms a target for n = 21.

    Returns:
        A `SubsetSums`. Targets that cannot be reached are listed in its `missing`.

    Raises:
        ValueError: If shapes do not fit, a number is not finite, or the tolerance is negative.

    Source: Pensia et al., 2006.07990; subsets by increasing size as in Burkholz et al.,
        2111.11146.

    Example:

    >>> found = subset_sum([0.5, 0.1, 3.0], [[0.2, 0.3, -0.4]], tolerance=0.01)
    >>> found.chosen.tolist()
    [[True, True, False], [True, True, True], [True, True, False]]
    >>> found.kept.tolist(), found.missing.tolist()
    ([2, 3, 2], [[2]])
    """
    values, offered = np.asarray(targets, np.float64), np.asarray(candidates, np.float64)
    _check(values, offered, tolerance)
    sets = offered.reshape(-1, offered.shape[-1])
    row = np.arange(len(sets)).reshape(offered.shape[:-1])
    set_of = np.broadcast_to(row, values.shape).ravel()
    chosen = _search(values.ravel(), sets, set_of, tolerance, best)
    chosen = chosen.reshape(*values.shape, sets.shape[1])
    sums = sums_of(offered, chosen)
    errors = np.abs(sums - values)
    kept = chosen.sum(axis=-1, dtype=np.int64)
    return SubsetSums(chosen, sums, errors, kept, np.argwhere(errors > tolerance))


def _search(values: Floats, sets: Floats, set_of: Indices, tolerance: float, best: bool) -> Bools:
    left = np.arange(len(values))
    chosen = np.zeros((len(values), sets.shape[1]), bool)
    if not best:
        chosen, left = by_size(values, sets, set_of, tolerance)
    chosen[left] = meet(values, sets, set_of, left)
    return chosen


def _check(values: Floats, offered: Floats, tolerance: float) -> None:
    fits = offered.ndim == values.ndim + 1 and all(
        c in (1, t) for c, t in zip(offered.shape, values.shape, strict=False)
    )
    if not fits:
        raise ValueError(
            f"Expected candidates of shape {values.shape} + (n,), the targets' shape and their "
            f"number; a 1 shares them along a dimension. Received: {offered.shape}"
        )
    if not 1 <= offered.shape[-1] <= MOST:
        raise ValueError(f"Expected 1 to {MOST} candidates a target. Received: {offered.shape[-1]}")
    for name, array in (("targets", values), ("candidates", offered)):
        if not np.isfinite(array).all():
            bad = np.argwhere(~np.isfinite(array))
            raise ValueError(
                f"Expected finite {name}. Received: {len(bad)} NaN or Inf, the first at index "
                f"{tuple(bad[0].tolist())}."
            )
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"Expected a finite `tolerance` of 0 or more. Received: {tolerance}")
