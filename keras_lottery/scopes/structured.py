"""Scopes whose masks have a shape that hardware or smaller layers can use.

They group weights by axes. A Dense kernel is (in, out), a convolution's (..., in, out),
so that by default inputs are axis -2 and outputs axis -1. A mask does not tell what it
masks; where the axes mean something else, name the path in `axis` or `exclude`:

- Conv2DTranspose (h, w, out, in): inputs `{"transpose": -1}`, outputs `{"transpose": -2}`;
- query, key and value of MultiHeadAttention (in, heads, size): inputs
  `{"query|key|value": 0}`;
- DepthwiseConv (h, w, in, multiplier) mixes no inputs and LSTM and GRU kernels
  (in, gates * units) hold a unit in several columns: `exclude` them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_lottery.masks import Masks, Path
from keras_lottery.schedules import Keep
from keras_lottery.scopes.arguments import Axis, axis_of, check_axis, check_pattern, is_integer
from keras_lottery.scopes.blocks import POOLING, keep_best_blocks
from keras_lottery.scopes.ranking import Scores, check_scores, competing, keep_best


@dataclass(frozen=True)
class NM:
    """N:M sparsity: of every `m` consecutive weights along the inputs at most `n` survive.

    2:4 is what NVIDIA GPUs since Ampere compute faster. The best `n` alive weights of each
    group stay; a last group of fewer than `m` keeps `min(n, its size)`. The pattern holds
    from the first pruning on, whatever the schedule: a layer ends with what the schedule
    asks of it, but never more than the pattern leaves; if that is fewer, the best of what
    the pattern leaves survive. So the first pruning by `prune_fraction=0.5` is exactly 2:4
    where 4 divides the inputs, and `kl.prune(model, 1.0, scope=kl.scopes.NM())` gives the
    pattern and nothing more.

    Args:
        n: Integer from 1 to `m`: how many survive.
        m: Integer, the size of a group.
        exclude: Regex of paths that are left as they are. Default: none.
        axis: The axis of the inputs: an integer, or a dict of regex to integer, of which
            the first match counts and -2 is for all others. Default: -2.

    Raises:
        ValueError: At construction, for values out of range; when called, for a weight
            that does not have the axis.

    Source: Mishra et al., 2104.08378.

    Example:

    >>> from keras_lottery.schedules import keep_fraction
    >>> scores = {"w": np.array([[4.0], [1.0], [3.0], [2.0], [9.0], [8.0], [7.0], [6.0]])}
    >>> alive = {"w": np.ones((8, 1), bool)}
    >>> NM(2, 4)(scores, alive, keep_fraction(0.5))["w"].ravel().astype(int).tolist()
    [1, 0, 1, 0, 1, 1, 0, 0]
    """

    n: int = 2
    m: int = 4
    exclude: str | None = None
    axis: Axis = -2

    def __post_init__(self) -> None:
        _check_nm(self.n, self.m)
        check_pattern("exclude", self.exclude)
        check_axis(self.axis)

    def __call__(self, scores: Scores, masks: Masks, keep: Keep) -> Masks:
        group = {p: masks[p] for p in competing(masks, self.exclude)}
        check_scores(scores, group)
        chosen = {p: self._layer(p, scores[p], m, keep) for p, m in group.items()}
        return {p: chosen.get(p, m) for p, m in masks.items()}

    def _layer(
        self, path: Path, score: NDArray[np.floating], mask: NDArray[np.bool_], keep: Keep
    ) -> NDArray[np.bool_]:
        axis = axis_of(path, mask.shape, self.axis, default=-2)
        left = mask & _best_of_groups(score, mask, self.n, self.m, axis)
        asked = keep(int(np.count_nonzero(mask)), mask.size)
        return keep_best({path: score}, {path: left}, min(asked, int(np.count_nonzero(left))))[path]


def is_m_by_n(weights: Any, n: int = 2, m: int = 4, axis: int = -2) -> bool:
    """Whether of every `m` consecutive weights along an axis at most `n` are not zero.

    Args:
        weights: Array of any dtype, weights or a mask.
        n: Integer from 1 to `m`.
        m: Integer, the size of a group; the last group may be smaller.
        axis: Integer, the axis of the inputs. Default: -2.

    Returns:
        True or False.

    Raises:
        ValueError: For `n` and `m` out of range or a missing axis.

    Example:

    >>> is_m_by_n(np.array([[0.5], [0.0], [0.0], [-0.3], [0.1]]))
    True
    >>> is_m_by_n(np.ones((4, 1), bool))
    False
    """
    _check_nm(n, m)
    alive = np.asarray(weights) != 0
    at = axis_of("weights", alive.shape, axis, default=-2)
    counts = np.add.reduceat(alive, np.arange(0, alive.shape[at], m), axis=at, dtype=np.intp)
    return bool((counts <= n).all())


@dataclass(frozen=True)
class Block:
    """Blocks over the last two axes live or die whole.

    A block lies in one position of the other axes, such as a convolution's height and
    width; blocks at the edges are smaller. A block's alive weights make its score; those
    already pruned stay pruned and do not count. The best blocks survive, as many as hold
    a number of alive weights nearest to what the schedule asks for, the larger of two
    equally near; at least one block of each layer that has any. A tfmot schedule asks for a
    number of blocks instead, so that matrices lose the same blocks as in tfmot (`"mean"` is
    its `"AVG"`), where blocks divide them: at uneven edges tfmot pools blocks other than
    those that it prunes.

    Args:
        size: Two integers of at least 1: rows (inputs) and columns (outputs). Default: (4, 1).
        pooling: `"mean"` or `"max"` of the scores of a block's alive weights, in float64.
        layerwise: Whether blocks compete inside their layer, as in tfmot, or with those
            of all layers.
        exclude: Regex of paths that are left as they are. Default: none.

    Raises:
        ValueError: At construction, for values out of range; when called, for a weight of
            rank 1.

    Source: Narang et al., 1711.02782.

    Example:

    >>> from keras_lottery.schedules import keep_fraction
    >>> scores = {"w": np.array([[1.0, 5.0], [2.0, 0.0], [9.0, 0.0], [0.0, 1.0]])}
    >>> alive = {"w": np.ones((4, 2), bool)}
    >>> Block((2, 1))(scores, alive, keep_fraction(0.5))["w"].astype(int).tolist()
    [[0, 1], [0, 1], [1, 0], [1, 0]]
    """

    size: tuple[int, int] = (4, 1)
    pooling: str = "mean"
    layerwise: bool = True
    exclude: str | None = None

    def __post_init__(self) -> None:
        sizes = tuple(self.size) if isinstance(self.size, Sequence) else ()
        if len(sizes) != 2 or not all(is_integer(s) and s >= 1 for s in sizes):
            raise ValueError(
                f"`size` must be two integers of at least 1, rows and columns. Received: "
                f"{self.size!r}"
            )
        object.__setattr__(self, "size", sizes)
        _check_pooling(self.pooling)
        check_pattern("exclude", self.exclude)

    def __call__(self, scores: Scores, masks: Masks, keep: Keep) -> Masks:
        group = {p: masks[p] for p in competing(masks, self.exclude)}
        flat = [p for p, m in group.items() if m.ndim < 2]
        if flat:
            raise ValueError(f"Blocks need weights of rank 2 or more. `exclude` these: {flat}")
        blocks = {p: (1,) * (m.ndim - 2) + self.size for p, m in group.items()}
        chosen = keep_best_blocks(scores, group, keep, blocks, self.pooling, self.layerwise)
        return {p: chosen.get(p, m) for p, m in masks.items()}


@dataclass(frozen=True)
class Channels:
    """Output channels (filters of a convolution, units of a Dense layer) live or die whole.

    A channel's alive weights make its score; those already pruned stay pruned and do not
    count. The best channels survive, as many as hold a number of alive weights nearest to
    what the schedule asks for, the larger of two equally near; at least one channel of
    each layer that has any. A layer of one channel, as a depthwise kernel of multiplier 1
    looks, stays whole. Biases and the next layer's inputs are not touched.

    Args:
        pooling: `"mean"` or `"max"` of the scores of a channel's alive weights, in float64.
            By mean magnitude the whole channels of a layer rank as by their L1 norm.
        layerwise: Whether channels compete inside their layer or with those of all layers.
        keep_output: Whether the output layer is left as it is: the last path of the masks,
            which is the last prunable weight of the model. `exclude` it if it is another one.
        exclude: Regex of paths that are left as they are. Default: none.
        axis: The axis of the outputs: an integer, or a dict of regex to integer, of which
            the first match counts and -1 is for all others. Default: -1.

    Raises:
        ValueError: At construction, for values out of range; when called, for a weight
            that does not have the axis, or if nothing is left to prune.

    Source: Li et al., 1608.08710.

    Example:

    >>> from keras_lottery.schedules import keep_fraction
    >>> scores = {"a": np.array([[1.0, 3.0], [2.0, 1.0]]), "out": np.ones((2, 1))}
    >>> alive = {p: np.ones(s.shape, bool) for p, s in scores.items()}
    >>> Channels()(scores, alive, keep_fraction(0.5))["a"].astype(int).tolist()
    [[0, 1], [0, 1]]
    """

    pooling: str = "mean"
    layerwise: bool = True
    keep_output: bool = True
    exclude: str | None = None
    axis: Axis = -1

    def __post_init__(self) -> None:
        _check_pooling(self.pooling)
        check_pattern("exclude", self.exclude)
        check_axis(self.axis)

    def __call__(self, scores: Scores, masks: Masks, keep: Keep) -> Masks:
        output = list(masks)[-1] if self.keep_output else None
        group = {p: masks[p] for p in competing(masks, self.exclude) if p != output}
        if not group:
            raise ValueError(
                f"`keep_output=True` leaves {output!r} whole, and there is no other path to prune "
                f"in {list(masks)}. Pass `keep_output=False` if it is not the output layer."
            )
        blocks = {p: self._block(p, m.shape) for p, m in group.items()}
        chosen = keep_best_blocks(scores, group, keep, blocks, self.pooling, self.layerwise)
        return {p: chosen.get(p, m) for p, m in masks.items()}

    def _block(self, path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
        axis = axis_of(path, shape, self.axis, default=-1)
        return tuple(1 if i == axis else size for i, size in enumerate(shape))


def _best_of_groups(
    score: NDArray[np.floating], mask: NDArray[np.bool_], n: int, m: int, axis: int
) -> NDArray[np.bool_]:
    """Whether fewer than `n` alive weights of a weight's group rank before it."""
    size = mask.shape[axis]
    groups = -(-size // m)
    padding = [(0, groups * m - size if i == axis else 0) for i in range(mask.ndim)]
    grouped = (*mask.shape[:axis], groups, m, *mask.shape[axis + 1 :])
    alive = np.moveaxis(np.pad(mask, padding).reshape(grouped), axis + 1, 0)
    score = np.where(mask, score, np.zeros((), score.dtype))
    score = np.moveaxis(np.pad(score, padding).reshape(grouped), axis + 1, 0)
    rank = np.zeros(alive.shape, np.min_scalar_type(m))
    for i in range(m):
        for j in range(m):
            if i != j:
                ahead = score[j] >= score[i] if j < i else score[j] > score[i]
                rank[i] += ahead & alive[j]
    best = np.moveaxis(rank < n, 0, axis + 1)
    padded = best.reshape((*mask.shape[:axis], groups * m, *mask.shape[axis + 1 :]))
    return np.take(padded, np.arange(size), axis=axis)


def _check_nm(n: Any, m: Any) -> None:
    if not (is_integer(n) and is_integer(m) and 1 <= n <= m):
        raise ValueError(
            "`n` of every `m` consecutive weights survive: two integers with 1 <= n <= m. "
            f"Received: n={n!r}, m={m!r}"
        )


def _check_pooling(pooling: Any) -> None:
    if pooling not in POOLING:
        raise ValueError(f"`pooling` must be one of {POOLING}. Received: {pooling!r}")
