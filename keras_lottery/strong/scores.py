"""Masks and effective weights from training scores: pure functions of tensors.

Which scores are the k largest is found without a sort: floats are mapped to integers of
the same order, and the k-th largest integer is searched by counting how many are not
smaller than a guess. The guess starts from the threshold of the last step, so that few
counts are needed. All of it runs inside a compiled step, under XLA too.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

Tensor: TypeAlias = Any

_LOW, _HIGH = -(2**31), 2**31 - 1
START = (0x3D000000, 1024)
"""The guess before there is a last step, about 0.03, and how far apart keys may lie there."""


def order(scores: Tensor) -> Tensor:
    """Integers that compare as the floats do.

    Args:
        scores: float32 tensor without NaN.

    Returns:
        int32 tensor of the same shape.

    Example:

    >>> order(tf.constant([-2.0, -1.0, 0.0, 0.5])).numpy().argsort().tolist()
    [0, 1, 2, 3]
    """
    bits = tf.bitcast(scores, tf.int32)
    return tf.where(bits < 0, tf.bitwise.bitwise_xor(bits, _HIGH), bits)


def magnitude_order(scores: Tensor) -> Tensor:
    """Integers that compare as the magnitudes of the floats do.

    Args:
        scores: float32 tensor without NaN.

    Returns:
        int32 tensor of the same shape, not negative.

    Example:

    >>> magnitude_order(tf.constant([-2.0, 0.0, 0.5])).numpy().argsort().tolist()
    [1, 2, 0]
    """
    return tf.bitcast(tf.abs(scores), tf.int32)


def top_k(keys: Sequence[Tensor], k: Tensor, start: Tensor = START) -> tuple[list[Tensor], Tensor]:
    """Masks of the k largest keys over all tensors together.

    Exactly k are True; of equal keys the earlier position goes first, tensors in their
    order and positions in memory order.

    Args:
        keys: int32 tensors, as `order` and `magnitude_order` give them.
        k: Integer scalar from 1 to the number of keys.
        start: int64 tensor of shape (2,): the second result of the last search.

    Returns:
        Bool tensors shaped like the keys, and the start of the next search.

    Example:

    >>> masks, _ = top_k([magnitude_order(tf.constant([0.1, -3.0, 2.0]))], 2)
    >>> masks[0].numpy().tolist()
    [False, True, True]
    """
    k, start = tf.cast(k, tf.int64), tf.cast(start, tf.int64)
    flat = [tf.reshape(key, [-1]) for key in keys]
    first = _count(flat, start[0])
    low, high = _bracket(flat, k, start, first)
    cut = tf.cast(low[0], tf.int32)
    # The branches give numbers, not masks: XLA would copy what a branch gives.
    ends = tf.cond(
        low[1] == k,
        lambda: [tf.constant(math.prod(key.shape)) for key in flat],
        lambda: _ends_of_ties(flat, cut, k - high[1]),
    )
    masks = [_reaching(key, cut, end) for key, end in zip(keys, ends, strict=True)]
    off = tf.abs(first - k)
    pace = tf.where(off < 32, start[1], tf.abs(low[0] - start[0]) // tf.maximum(off, 1))
    return masks, tf.stack([low[0], tf.maximum(pace, 1)])


def _bracket(keys: Sequence[Tensor], k: Tensor, start: Tensor, first: Tensor) -> Any:
    """Two pairs of a threshold and how many keys reach it: at least k, and fewer than k.

    Either exactly k reach the lower one, or the upper one is its successor.
    """

    def place(guess: Tensor, count: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        found = tf.stack([guess, count])
        return tf.where(count >= k, found, low), tf.where(count >= k, high, found)

    def body(turn: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        guess = _next(turn, start[1], low, high, k)
        return turn + 1, *place(guess, _count(keys, guess), low, high)

    everything = sum(math.prod(key.shape) for key in keys)
    ends = tf.constant([_LOW, everything], tf.int64), tf.constant([_HIGH, 0], tf.int64)
    _, low, high = tf.while_loop(
        lambda turn, low, high: (low[1] != k) & (high[0] - low[0] > 1),
        body,
        [tf.constant(0, tf.int64), *place(start[0], first, *ends)],
    )
    return low, high


def _next(turn: Tensor, pace: Tensor, low: Tensor, high: Tensor, k: Tensor) -> Tensor:
    """The next guess: further out until both sides are known, then in between.

    In between it is interpolated, after a while halved in turns, so that it always ends.
    """
    wider = pace * 2 ** tf.minimum(turn, 30)
    down = high[0] - (k - high[1] + 1) * wider
    up = low[0] + (low[1] - k + 1) * wider
    share = tf.cast(low[1] - k, tf.float64) / tf.cast(tf.maximum(low[1] - high[1], 1), tf.float64)
    halved = (turn > 8) & (turn % 2 == 0)
    part = tf.where(halved, tf.constant(0.5, tf.float64), share)
    between = low[0] + tf.cast(part * tf.cast(high[0] - low[0], tf.float64), tf.int64)
    guess = tf.where(low[0] == _LOW, down, tf.where(high[0] == _HIGH, up, between))
    return tf.clip_by_value(guess, low[0] + 1, high[0] - 1)


def _count(keys: Sequence[Tensor], threshold: Tensor) -> Tensor:
    """How many keys are not smaller than the threshold."""
    cut = tf.cast(threshold, tf.int32)
    counts = [tf.reduce_sum(tf.cast(key >= cut, tf.int32)) for key in keys]
    return tf.cast(tf.add_n(counts), tf.int64)


def _ends_of_ties(keys: Sequence[Tensor], cut: Tensor, places: Tensor) -> list[Tensor]:
    """The position in each tensor from which on a key that equals `cut` has no place left."""
    ends, left = [], tf.cast(places, tf.int32)
    for key in keys:
        equal = tf.cast(key == cut, tf.int32)
        ends.append(tf.reduce_sum(tf.cast(tf.cumsum(equal) <= left, tf.int32)))
        left -= tf.reduce_sum(equal)
    return ends


def _reaching(key: Tensor, cut: Tensor, end: Tensor) -> Tensor:
    """What reaches `cut`; from the position `end` on, what exceeds it."""
    position = tf.reshape(tf.range(math.prod(key.shape)), key.shape)
    return key >= cut + tf.cast(position >= end, tf.int32)


@tf.custom_gradient
def straight_through(
    scores: Tensor, value: Tensor, slope: Tensor
) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """`value` forward; backward, the scores get its gradient times `slope`.

    Args:
        scores: float32 tensor.
        value: Tensor of the same shape and dtype: what the scores choose.
        slope: Tensor of the same shape: the derivative that is put in the place of that
            of the choice.

    Returns:
        `value`.

    Source: Bengio et al., 1308.3432.

    Example:

    >>> scores = tf.Variable([0.3, 2.0])
    >>> with tf.GradientTape() as tape:
    ...     weight = straight_through(scores, tf.constant([0.0, 5.0]), tf.constant([4.0, 5.0]))
    ...     loss = tf.reduce_sum(weight)
    >>> tape.gradient(loss, scores).numpy().tolist()
    [4.0, 5.0]
    """

    def gradient(upstream: Tensor) -> tuple[Tensor, None, None]:
        return upstream * slope, None, None

    return tf.identity(value), gradient


def popup_weight(scores: Tensor, weight: Tensor, mask: Tensor, signed: bool = False) -> Tensor:
    """Edge-popup's effective weight, w * M.

    dL/d|s| = dL/d(w M) * w, so dL/ds is that times the sign of s; where raw scores compete,
    dL/ds = dL/d(w M) * w.

    Args:
        scores: float32 tensor.
        weight: float32 tensor of the same shape.
        mask: Bool tensor of the same shape.
        signed: Whether scores compete by s instead of |s|.

    Source: Ramanujan et al., 1911.13299, section 3, and the authors' code for |s|.

    Example:

    >>> s, w = tf.constant([1.0, -2.0]), tf.constant([5.0, -7.0])
    >>> popup_weight(s, w, tf.abs(s) > 1.5).numpy().tolist()
    [0.0, -7.0]
    """
    competing = scores if signed else _magnitude(scores)
    return straight_through(competing, tf.where(mask, weight, 0.0), weight)


def _magnitude(scores: Tensor) -> Tensor:
    """|s| as a leaky ReLU of slope -1, whose gradient is one operation; that of `abs` is two."""
    return tf.nn.leaky_relu(scores, alpha=-1.0)


def binary_weight(scores: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """Biprop's effective weight, alpha * sign(w) * M; alpha = |w M|_1 / |M|_1.

    The gradient is edge-popup's: dL/d|s| = dL/d(effective) * w.

    Args:
        scores: float32 tensor.
        weight: float32 tensor of the same shape.
        mask: Bool tensor of the same shape.

    Source: Diffenderfer and Kailkhura, 2103.09377, algorithm 1.

    Example:

    >>> s, w = tf.constant([1.0, 2.0, 3.0]), tf.constant([5.0, -1.0, 3.0])
    >>> binary_weight(s, w, s > 1.5).numpy().tolist()
    [0.0, -2.0, 2.0]
    """
    alive = tf.maximum(tf.reduce_sum(tf.cast(mask, tf.float32)), 1.0)
    alpha = tf.reduce_sum(tf.where(mask, tf.abs(weight), 0.0)) / alive
    value = tf.where(mask, alpha * tf.sign(weight), 0.0)
    return straight_through(_magnitude(scores), value, weight)


def bernoulli_weight(scores: Tensor, weight: Tensor, mask: Tensor, rescale: bool = False) -> Tensor:
    """A supermask's effective weight, w * M with M drawn from Bernoulli(sigmoid(m)).

    dL/dm = dL/d(w M) * w * sigmoid(m) * (1 - sigmoid(m)): straight through the draw.

    Args:
        scores: float32 tensor, the logits m.
        weight: float32 tensor of the same shape.
        mask: Bool tensor of the same shape, the draw.
        rescale: Whether the weights are multiplied by the layer's size over its alive
            weights (dynamic weight rescaling).

    Source: Zhou et al., 1905.01067, section 5.

    Example:

    >>> m, w = tf.constant([0.0, 0.0]), tf.constant([3.0, 5.0])
    >>> bernoulli_weight(m, w, tf.constant([True, False]), rescale=True).numpy().tolist()
    [6.0, 0.0]
    """
    if rescale:
        alive = tf.maximum(tf.reduce_sum(tf.cast(mask, tf.float32)), 1.0)
        weight = weight * (tf.cast(tf.size(weight), tf.float32) / alive)
    chance = tf.sigmoid(scores)
    return straight_through(scores, tf.where(mask, weight, 0.0), weight * chance * (1 - chance))


def mined_weight(scores: Tensor, weight: Tensor, mask: Tensor, active: Tensor) -> Tensor:
    """Gem-Miner's effective weight, w * round(p) where active; no gradient elsewhere.

    Args:
        scores: float32 tensor in [0, 1], the p.
        weight: float32 tensor of the same shape.
        mask: Bool tensor of the same shape: active, and p not below 0.5.
        active: Bool tensor of the same shape: what was not frozen to 0.

    Source: Sreenivasan et al., 2202.12002, algorithm 1.

    Example:

    >>> p, w, active = tf.constant([0.4, 0.6]), tf.constant([3.0, 5.0]), tf.constant([True] * 2)
    >>> mined_weight(p, w, p >= 0.5, active).numpy().tolist()
    [0.0, 5.0]
    """
    return straight_through(scores, tf.where(mask, weight, 0.0), tf.where(active, weight, 0.0))
