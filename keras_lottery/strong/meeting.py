"""The nearest of all 2^n subset sums, found where two halves of the candidates meet."""

import numpy as np

from keras_lottery.strong.subsets import Bools, Floats, Indices, blocks

MOST = 40  # candidates: each half then has 2^20 sums


def meet(targets: Floats, sets: Floats, set_of: Indices, wanted: Indices) -> Bools:
    """The subset whose sum is nearest, of any size, for the targets that are wanted.

    The sums of one half of the candidates are sorted; for each sum of the other half the
    missing rest is looked up among them: about 2^(n/2) look-ups a target instead of 2^n sums.

    Args:
        targets: Shape (targets,).
        sets: Shape (sets, n), n at most 40: the candidates.
        set_of: Shape (targets,): the row of `sets` that a target takes its candidates from.
        wanted: Positions in `targets`.

    Returns:
        Bool array of shape (wanted, n): the chosen candidates.

    Source: Horowitz and Sahni, "Computing Partitions with Applications to the Knapsack
        Problem", 1974.

    Example:

    >>> candidates = np.array([[0.2, 0.3, -0.9, 0.7]])
    >>> meet(np.array([0.1]), candidates, np.array([0]), np.array([0])).tolist()
    [[False, True, True, True]]
    """
    n = sets.shape[1]
    found = np.zeros((len(wanted), n), bool)
    order = np.argsort(set_of[wanted], kind="stable")
    grouped = set_of[wanted[order]]
    starts = np.flatnonzero(np.diff(grouped, prepend=-1))
    for group in np.split(order, starts[1:]) if len(order) else []:
        candidates = sets[set_of[wanted[group[0]]]]
        found[group] = _nearest(targets[wanted[group]], candidates)
    return found


def _nearest(targets: Floats, candidates: Floats) -> Bools:
    """The members of the nearest subset of one set of candidates, for each target."""
    half = len(candidates) // 2
    first, second = _all_sums(candidates[:half]), _all_sums(candidates[half:])
    sort_first, sort_second = np.argsort(first), np.argsort(-second)
    first, second = first[sort_first], second[sort_second]
    codes = np.empty((len(targets), 2), np.int64)
    for part in blocks(np.arange(len(targets)), len(second)):
        a, b = _pair(targets[part], first, second)
        codes[part] = np.stack([sort_first[a], sort_second[b]], axis=1)
    bits = np.arange(len(candidates))
    of_first = (codes[:, :1] >> bits[:half]) & 1
    of_second = (codes[:, 1:] >> (bits[half:] - half)) & 1
    return np.asarray(np.concatenate([of_first, of_second], axis=1), bool)


def _all_sums(candidates: Floats) -> Floats:
    """All 2^n sums; bit k of a sum's position says whether candidate k is in it."""
    sums = np.zeros(1)
    for candidate in candidates:
        sums = np.concatenate([sums, sums + candidate])
    return sums


def _pair(targets: Floats, first: Floats, second: Floats) -> tuple[Indices, Indices]:
    """Positions in both halves whose sums add up nearest; `first` ascends."""
    rest = targets[:, None] - second
    above = np.searchsorted(first, rest)
    below = np.maximum(above - 1, 0)
    np.minimum(above, len(first) - 1, out=above)
    to_below, to_above = np.abs(first[below] - rest), np.abs(first[above] - rest)
    place = np.where(to_below <= to_above, below, above)
    best = np.minimum(to_below, to_above, out=to_below).argmin(axis=1)
    return place[np.arange(len(targets)), best], best
