"""Rules whose scores live in an interval: Bernoulli supermasks and Gem-Miner."""

import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lottery.masks import Array
from keras_lottery.strong import scores as from_scores
from keras_lottery.strong.rules import (
    Now,
    Rule,
    alive_count,
    check_density,
    check_steps,
    register,
    uniform,
)
from keras_lottery.strong.scores import Tensor

TESTS = ("sample", "threshold")


@register
@dataclass(frozen=True)
class Supermask(Rule):
    """Alive with the chance sigmoid(m), drawn anew each step; see `supermask`."""

    rescale: bool = False
    test: str = "sample"

    def __post_init__(self) -> None:
        if self.test not in TESTS:
            raise ValueError(f"`test` must be one of {list(TESTS)}. Received: {self.test!r}")

    def initial_scores(self, shape: tuple[int, ...], fan_in: int, rng: Any) -> Array:
        return np.zeros(shape, np.float32)

    def masks(self, now: Now) -> tuple[list[Tensor], Tensor]:
        if self.test == "threshold" and not now.training:
            return [s >= 0 for s in now.scores], now.starts
        draws = [uniform(self.seed, now.step, i, s.shape) for i, s in enumerate(now.scores)]
        pairs = zip(draws, now.scores, strict=True)
        return [draw < tf.sigmoid(s) for draw, s in pairs], now.starts

    def weight(self, now: Now, index: int, weight: Tensor, mask: Tensor) -> Tensor:
        return from_scores.bernoulli_weight(now.scores[index], weight, mask, self.rescale)


@register
class UnitInterval(keras.constraints.Constraint):
    """Projects a variable onto [0, 1].

    Example:

    >>> UnitInterval()(keras.ops.array([-1.0, 0.5, 2.0])).numpy().tolist()
    [0.0, 0.5, 1.0]
    """

    def __call__(self, w: Any) -> Any:
        return keras.ops.clip(w, 0.0, 1.0)


@register
@dataclass(frozen=True)
class GemMiner(Rule):
    """Scores in [0, 1], rounded; the lowest active are frozen to 0; see `gem_miner`."""

    density: float = 0.05
    steps: int = 1000
    every: int = 100
    penalty_scale: float = 1e-4

    def __post_init__(self) -> None:
        check_density(self.density)
        check_steps("steps", self.steps)
        check_steps("every", self.every)
        if not self.penalty_scale >= 0:
            raise ValueError(f"`penalty` must not be negative. Received: {self.penalty_scale!r}")
        if self.every > self.steps:
            raise ValueError(
                "`every` must not exceed `steps`, or nothing is ever frozen. Received: "
                f"every={self.every}, steps={self.steps}"
            )

    def initial_scores(self, shape: tuple[int, ...], fan_in: int, rng: Any) -> Array:
        return np.asarray(rng.random(shape), np.float32)

    def constraint(self) -> Any:
        return UnitInterval()

    def masks(self, now: Now) -> tuple[list[Tensor], Tensor]:
        pairs = zip(now.scores, now.active, strict=True)
        return [(s >= 0.5) & active for s, active in pairs], now.starts

    def weight(self, now: Now, index: int, weight: Tensor, mask: Tensor) -> Tensor:
        return from_scores.mined_weight(now.scores[index], weight, mask, now.active[index])

    def penalty(self, now: Now) -> Tensor:
        pairs = zip(now.scores, now.active, strict=True)
        squares = [tf.reduce_sum(tf.square(tf.where(a, s, 0.0))) for s, a in pairs]
        return self.penalty_scale * tf.add_n(squares)

    def freeze(self, now: Now) -> list[Tensor]:
        """In every `every`-th step the lowest active go, so that density^(t / steps) stay."""
        rounds, this = self.steps // self.every, now.step + 1
        due = (this % self.every == 0) & (this <= rounds * self.every)
        return list(tf.cond(due, lambda: self._frozen(now, rounds), lambda: list(now.active)))

    def _frozen(self, now: Now, rounds: int) -> list[Tensor]:
        total = sum(math.prod(s.shape) for s in now.scores)
        counts = [alive_count(total, self.density ** (i / rounds)) for i in range(rounds + 1)]
        keep = tf.gather(tf.constant(counts, tf.int64), (now.step + 1) // self.every)
        pairs = zip(now.scores, now.active, strict=True)
        keys = [tf.where(a, from_scores.magnitude_order(s), -1) for s, a in pairs]
        return from_scores.top_k(keys, keep)[0]
