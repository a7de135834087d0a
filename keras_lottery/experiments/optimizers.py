"""Optimizers by name, and the papers' learning-rate schedules."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

OPTIMIZERS: dict[str, Callable[[Any], keras.Optimizer]] = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
    "momentum": lambda rate: keras.optimizers.SGD(rate, momentum=0.9),
    "nesterov": lambda rate: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
    "rmsprop": keras.optimizers.RMSprop,
    "lion": keras.optimizers.Lion,
    "lamb": keras.optimizers.Lamb,
    "muon": keras.optimizers.Muon,
}


@keras.saving.register_keras_serializable(package="keras_lottery")
class WarmupThenDrops(keras.optimizers.schedules.LearningRateSchedule):
    """The papers' schedule: a linear rise, then drops by a factor, or a cosine to zero.

    Args:
        peak: Learning rate after the rise, above 0.
        warmup: Integer, steps of the linear rise from 0.
        drops: Steps from which the rate is multiplied by `factor`, each once more.
        factor: Float above 0.
        cosine_until: Integer step at which a cosine from the end of the rise reaches 0;
            `None` for no cosine.

    Source: Frankle & Carbin, 1803.03635, section 4 (warmup) and figure 2 (drops).

    Example:

    >>> rate = WarmupThenDrops(peak=0.1, warmup=10, drops=[20], factor=0.1)
    >>> [round(float(rate(step)), 6) for step in (0, 5, 10, 19, 20)]
    [0.0, 0.05, 0.1, 0.1, 0.01]
    """

    def __init__(
        self,
        peak: float,
        warmup: int = 0,
        drops: Sequence[int] = (),
        factor: float = 0.1,
        cosine_until: int | None = None,
    ):
        super().__init__()
        self.peak, self.warmup, self.drops = peak, warmup, list(drops)
        self.factor, self.cosine_until = factor, cosine_until

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        rate = (
            self.peak * ops.minimum(step / max(self.warmup, 1), 1.0) if self.warmup else self.peak
        )
        n = sum((ops.cast(step >= d, "float32") for d in self.drops), start=ops.zeros(()))
        rate = rate * ops.power(self.factor, n)
        if self.cosine_until is None:
            return rate
        share = (step - self.warmup) / max(self.cosine_until - self.warmup, 1)
        return rate * (1 + ops.cos(math.pi * ops.clip(share, 0.0, 1.0))) / 2

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        names = ("peak", "warmup", "drops", "factor", "cosine_until")
        return {name: getattr(self, name) for name in names}


def make_optimizer(name: str, rate: Any) -> keras.Optimizer:
    """A Keras optimizer by its lower-case name, with a rate or a schedule of rates.

    Raises:
        ValueError: If there is none of that name; lists the names.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"`optimizer` must be one of {list(OPTIMIZERS)}. Received: {name!r}")
    return OPTIMIZERS[name](rate)
