"""Rules: how one method gets masks and effective weights out of scores.

A rule is a frozen set of options with pure methods; what changes lies in the variables of
`LearnedMask`, which hands them over as a `Now`.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_lottery.masks import Array
from keras_lottery.strong import scores as from_scores
from keras_lottery.strong.drawing import check_weights, draw_tensor
from keras_lottery.strong.scores import Tensor

register = keras.saving.register_keras_serializable(package="keras_lottery")
SCOPES = ("layerwise", "global")


class Now(NamedTuple):
    """What a rule may look at in one step.

    Attributes:
        step: int64 scalar, the training steps so far.
        training: Whether this is one.
        scores: float32 tensors, one a masked weight.
        weights: float32 tensors of the same shapes: the frozen weights.
        active: Bool tensors of the same shapes: what may be alive.
        starts: int64 tensor of shape (searches, 2): where `top_k` starts.
        fans: Input connections of a unit, an integer for each masked weight.
    """

    step: Tensor
    training: bool
    scores: list[Tensor]
    weights: list[Tensor]
    active: list[Tensor]
    starts: Tensor
    fans: tuple[int, ...]


@dataclass(frozen=True)
class Rule:
    """What all methods share. Subclasses give `masks` and `weight`.

    Args:
        seed: Integer; draws of the rule depend on it and the step alone.
    """

    seed: int = 0

    def initial_scores(self, shape: tuple[int, ...], fan_in: int, rng: Any) -> Array:
        """Kaiming-uniform with a = sqrt(5): uniform within 1 / sqrt(fan_in)."""
        bound = 1 / math.sqrt(fan_in)
        return np.asarray(rng.uniform(-bound, bound, shape), np.float32)

    def masks(self, now: Now) -> tuple[list[Tensor], Tensor]:
        """Bool tensors, one a masked weight, and the next `starts`."""
        raise NotImplementedError

    def weight(self, now: Now, index: int, weight: Tensor, mask: Tensor) -> Tensor:
        """What the layer computes with, and through which the scores get their gradient."""
        raise NotImplementedError

    def redraw(self, now: Now, masks: list[Tensor]) -> list[Tensor]:
        """The weights of this step; the same list if the method never changes them."""
        return now.weights

    def freeze(self, now: Now) -> list[Tensor]:
        """What may be alive after this step; the same list if that never changes."""
        return now.active

    def penalty(self, now: Now) -> Tensor | None:
        """A term of the loss."""
        return None

    def constraint(self) -> Any:
        """A constraint of the score variables."""
        return None

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Rule":
        return cls(**config)


def check_density(density: float) -> None:
    """Raises `ValueError` unless the density lies in (0, 1]."""
    if not isinstance(density, (int, float)) or not 0 < density <= 1:
        raise ValueError(f"`density` must lie in (0, 1]. Received: {density!r}")


def check_steps(name: str, value: Any) -> None:
    """Raises `ValueError` unless it is a whole number of steps, at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"`{name}` must be a number of steps, at least 1. Received: {value!r}")


def alive_count(total: int, density: float) -> int:
    """`round(density * total)`, at least 1.

    Example:

    >>> alive_count(5, 0.5), alive_count(3, 0.01)
    (2, 1)
    """
    return max(1, round(density * total))


@register
@dataclass(frozen=True)
class EdgePopup(Rule):
    """The k largest |s| are alive, in each layer or in all together; see `edge_popup`."""

    density: float = 0.5
    scope: str = "layerwise"
    anneal: int | None = None

    def __post_init__(self) -> None:
        check_density(self.density)
        if self.scope not in SCOPES:
            raise ValueError(f"`scope` must be one of {list(SCOPES)}. Received: {self.scope!r}")
        if self.anneal is not None:
            check_steps("anneal", self.anneal)

    def keys(self, scores: list[Tensor]) -> list[Tensor]:
        """Integers in the order in which scores compete."""
        return [from_scores.magnitude_order(s) for s in scores]

    def masks(self, now: Now) -> tuple[list[Tensor], Tensor]:
        # Inside of a graph it is compiled even if that is not: this halves its time.
        choose = EdgePopup.choose if tf.executing_eagerly() else _compiled_choose
        masks, starts = choose(self, now.scores, now.step, now.starts)
        return list(masks), starts

    def choose(
        self, scores: list[Tensor], step: Tensor, starts: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """As `masks`."""
        keys, begin = self.keys(scores), tf.unstack(starts, num=len(scores))
        if self.scope == "global":
            masks, start = self._best(keys, step, begin[0])
            return masks, tf.stack([start, *begin[1:]])
        found = [self._best([key], step, s) for key, s in zip(keys, begin, strict=True)]
        return [masks[0] for masks, _ in found], tf.stack([start for _, start in found])

    def weight(self, now: Now, index: int, weight: Tensor, mask: Tensor) -> Tensor:
        return from_scores.popup_weight(now.scores[index], weight, mask)

    def _best(self, keys: list[Tensor], step: Tensor, start: Tensor) -> Any:
        total = sum(math.prod(key.shape) for key in keys)
        return from_scores.top_k(keys, self._alive(total, step), start)

    def _alive(self, total: int, step: Tensor) -> Tensor:
        """The count at this step: from all of them geometrically down to the density."""
        last = tf.constant(alive_count(total, self.density), tf.int64)
        if self.anneal is None:
            return last
        done = tf.cast(step, tf.float64) / self.anneal
        count = tf.round(total * tf.pow(tf.constant(self.density, tf.float64), done))
        return tf.where(done >= 1, last, tf.maximum(tf.cast(count, tf.int64), last))


_compiled_choose = tf.function(EdgePopup.choose, jit_compile=True)


@register
@dataclass(frozen=True)
class Biprop(EdgePopup):
    """Edge-popup over binary weights; see `biprop`."""

    def weight(self, now: Now, index: int, weight: Tensor, mask: Tensor) -> Tensor:
        return from_scores.binary_weight(now.scores[index], weight, mask)


@register
@dataclass(frozen=True)
class IteRand(EdgePopup):
    """Edge-popup by raw scores whose pruned weights are drawn anew; see `iterand`."""

    every: int = 300
    probability: float = 0.1
    weights: str = "signed_constant"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps("every", self.every)
        check_weights(self.weights, drawn=True)
        if not 0 <= self.probability <= 1:
            raise ValueError(f"`probability` must lie in [0, 1]. Received: {self.probability!r}")

    def keys(self, scores: list[Tensor]) -> list[Tensor]:
        return [from_scores.order(s) for s in scores]

    def weight(self, now: Now, index: int, weight: Tensor, mask: Tensor) -> Tensor:
        return from_scores.popup_weight(now.scores[index], weight, mask, signed=True)

    def redraw(self, now: Now, masks: list[Tensor]) -> list[Tensor]:
        due = (now.step > 0) & (now.step % self.every == 0)
        return list(tf.cond(due, lambda: self._redrawn(now, masks), lambda: list(now.weights)))

    def _redrawn(self, now: Now, masks: list[Tensor]) -> list[Tensor]:
        """Each pruned weight keeps its value or is drawn anew, by the seed and the step."""
        new = []
        for i, (weight, mask) in enumerate(zip(now.weights, masks, strict=True)):
            chance = uniform(self.seed, now.step, 2 * i, weight.shape)
            fresh = draw_tensor(
                self.weights, now.fans[i], uniform(self.seed, now.step, 2 * i + 1, weight.shape)
            )
            new.append(tf.where(~mask & (chance < self.probability), fresh, weight))
        return new


def uniform(seed: int, step: Tensor, index: int, shape: Any) -> Tensor:
    """float32 tensor of draws from [0, 1) that depend on the three numbers alone."""
    pair = tf.stack([tf.cast(seed, tf.int64), tf.cast(step, tf.int64) * 4096 + index])
    return tf.random.stateless_uniform(shape, pair, alg="philox")
