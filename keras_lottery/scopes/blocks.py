"""Blocks of weights: their scores, the best of them, and masks of whole blocks."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_lottery.masks import Masks, Path
from keras_lottery.schedules import Keep, KeepSparsity
from keras_lottery.scopes.ranking import Scores, check_scores

Shape = tuple[int, ...]
Bools = NDArray[np.bool_]
POOLING = ("mean", "max")


def keep_best_blocks(
    scores: Scores,
    masks: Masks,
    keep: Keep,
    shapes: Mapping[Path, Shape],
    pooling: str,
    layerwise: bool,
) -> Masks:
    """Cuts each path into blocks of `shapes[path]` and keeps the best whole ones.

    Args:
        scores: Dict of path to float array shaped like the weight; higher stays.
        masks: Dict of path to bool array; what is pruned stays pruned.
        keep: `(alive, total) -> survivors`, counted in weights; in blocks if it is a
            `KeepSparsity`.
        shapes: Dict of path to the block's size along each axis; blocks at the end of an
            axis are smaller.
        pooling: `"mean"` or `"max"` of the scores of a block's alive weights, in float64.
        layerwise: Whether `keep` is asked for each path or once for all.

    Raises:
        NotFiniteError: If an alive weight's score is NaN or Inf; a `ValueError`.
    """
    check_scores(scores, masks)
    sizes = {p: _reduce(np.add, m, shapes[p], np.intp) for p, m in masks.items()}
    values = {p: _pool(scores[p], m, shapes[p], sizes[p], pooling) for p, m in masks.items()}
    kept: Masks = {}
    for group in [[p] for p in masks] if layerwise else [list(masks)]:
        size = {p: sizes[p] for p in group}
        total = sum(masks[p].size for p in group)
        if isinstance(keep, KeepSparsity):  # counted in blocks
            size = {p: np.minimum(s, 1) for p, s in size.items()}
            total = sum(s.size for s in size.values())
        n = keep(sum(int(s.sum()) for s in size.values()), total)
        kept |= keep_best_units({p: values[p] for p in group}, size, n)
    return {p: m & _expand(kept[p], shapes[p], m.shape) for p, m in masks.items()}


def _pool(score: Any, mask: Bools, shape: Shape, sizes: Any, pooling: str) -> NDArray[np.float64]:
    """Each block's score; 0 where nothing is alive."""
    if pooling == "mean":
        total = _reduce(np.add, np.where(mask, score, score.dtype.type(0)), shape, np.float64)
        return np.asarray(total / np.maximum(sizes, 1), np.float64)
    lowest = np.min(score, where=mask, initial=0)
    best = _reduce(np.maximum, np.where(mask, score, lowest), shape, score.dtype)
    return np.where(sizes > 0, best.astype(np.float64), 0.0)


def _reduce(ufunc: np.ufunc, array: Any, shape: Shape, dtype: Any) -> Any:
    """One value for each block, reduced in `dtype`."""
    for axis, size in enumerate(shape):
        if size > 1:
            starts = np.arange(0, array.shape[axis], size)
            array = ufunc.reduceat(array, starts, axis=axis, dtype=dtype)
    return array.astype(dtype, copy=False)


def _expand(blocks: Bools, shape: Shape, full: Shape) -> Bools:
    """Each block's value for each of its weights."""
    for axis, size in enumerate(shape):
        if size > 1:
            blocks = np.take(blocks, np.arange(full[axis]) // size, axis=axis)
    return blocks


def keep_best_units(
    values: Mapping[Path, NDArray[np.float64]], sizes: Mapping[Path, NDArray[np.intp]], n: int
) -> Masks:
    """Keeps the best whole units, as many as hold a number of weights nearest to `n`.

    The best unit of each path comes first, so that none is emptied; then all others by
    their value. Of this row the front part stays whose weights come nearest to `n`, the
    longer one of two equally near. Ties as the package says.

    Args:
        values: Dict of path to float64 array, one finite value for each unit; higher stays.
        sizes: Dict of path to integer array, the alive weights of each unit; a unit with
            none is pruned.
        n: Integer, the number of weights asked for.

    Returns:
        Dict of path to bool array shaped like the values.

    Example:

    >>> values, sizes = {"w": np.array([3.0, 1.0, 2.0])}, {"w": np.array([4, 4, 2])}
    >>> keep_best_units(values, sizes, 7)["w"].tolist()
    [True, False, True]
    """
    paths = sorted(values)
    size = np.concatenate([sizes[p].ravel() for p in paths])
    value = np.concatenate([values[p].ravel() for p in paths])
    ends = np.cumsum([values[p].size for p in paths])
    first = np.zeros(value.size, bool)
    for part in np.split(np.arange(value.size), ends[:-1]):
        alive = part[size[part] > 0]
        if alive.size:
            first[alive[np.argmax(value[alive])]] = True
    units = np.flatnonzero(size)
    order = units[np.lexsort((-value[units], ~first[units]))]
    kept = np.zeros(value.size, bool)
    if order.size:
        least = int(np.count_nonzero(first))
        distance = np.abs(np.cumsum(size[order]) - n)[least - 1 :]
        kept[order[: order.size - int(np.argmin(distance[::-1]))]] = True
    flat = dict(zip(paths, np.split(kept, ends[:-1]), strict=True))
    return {p: flat[p].reshape(values[p].shape) for p in values}
