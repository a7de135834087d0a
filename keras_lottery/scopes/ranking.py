"""Ranking: the best of scored weights, or of blocks of them, and the words around it."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from keras_lottery.masks import Masks, Path
from keras_lottery.schedules import Keep

Scores = Mapping[Path, NDArray[np.floating]]
Scope = Callable[[Scores, Masks, Keep], Masks]


class NotFiniteError(ValueError):
    """Weights or scores hold NaN or Inf; nothing was pruned by them."""


def check_scores(scores: Scores, masks: Masks) -> None:
    """Raises `NotFiniteError` if an alive weight's score is NaN or Inf."""
    bad = [p for p in sorted(masks) if not np.isfinite(scores[p][masks[p]]).all()]
    if bad:
        raise NotFiniteError(f"NaN or Inf in the scores of {bad}")


def competing(masks: Collection[Path], exclude: str | None) -> list[Path]:
    """The paths that a scope prunes: those that the regex does not match.

    Raises:
        ValueError: If none is left.
    """
    left = [p for p in masks if not (exclude and re.search(exclude, p))]
    if not left:
        raise ValueError(f"`exclude={exclude!r}` leaves no path of {sorted(masks)}.")
    return left


def keep_best(scores: Scores, masks: Masks, n: int) -> Masks:
    """Keeps the `n` best-scored alive weights, ranked across all paths.

    A selection (`np.partition`), not a sort. Ties as the module says.

    Args:
        scores: Dict of path to float array shaped like the weight; higher stays.
        masks: Dict of path to bool array; only alive weights compete.
        n: Integer from 0 to the number of alive weights.

    Raises:
        NotFiniteError: If an alive weight's score is NaN or Inf; a `ValueError`.
        ValueError: If `n` is out of range.

    Example:

    >>> best = keep_best({"w": np.array([3.0, 1.0, 2.0])}, {"w": np.ones(3, bool)}, 2)
    >>> best["w"].tolist()
    [True, False, True]
    """
    paths = sorted(masks)
    flat = _alive_scores(scores, masks, paths)
    if not 0 <= n <= flat.size:
        raise ValueError(f"Cannot keep {n} of {flat.size} alive weights.")
    if not np.isfinite(flat).all():
        check_scores(scores, masks)
    if n == 0 or n == flat.size:
        return {p: masks[p].copy() if n else np.zeros_like(masks[p]) for p in masks}
    flat.partition(flat.size - n)
    cut = flat[flat.size - n]
    tied = bool(np.any(flat[: flat.size - n] == cut))
    ties = n - int(np.count_nonzero(flat[flat.size - n :] > cut)) if tied else 0
    del flat
    survivors: Masks = {}
    for path in paths:
        score = scores[path]
        if not tied:
            survivors[path] = (score >= cut) & masks[path]
            continue
        survivors[path] = (score > cut) & masks[path]
        level = np.flatnonzero((score == cut) & masks[path])[:ties]
        survivors[path].flat[level] = True
        ties -= level.size
    return {p: survivors[p] for p in masks}


def _alive_scores(scores: Scores, masks: Masks, paths: Sequence[Path]) -> NDArray[np.floating]:
    """The scores of the alive weights in one row, filled path by path to save memory."""
    sizes = [int(np.count_nonzero(masks[p])) for p in paths]
    flat = np.zeros(0)
    for path, size, end in zip(paths, sizes, np.cumsum(sizes), strict=True):
        score = scores[path]
        if path == paths[0]:
            flat = np.empty(sum(sizes), score.dtype)
        elif np.result_type(flat, score) != flat.dtype:
            flat = flat.astype(np.result_type(flat, score))
        flat[end - size : end] = score.ravel() if size == score.size else score[masks[path]]
    return flat
