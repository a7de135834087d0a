"""When a training was best: the step of minimal validation loss, and what it gained."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_lottery.settings import check_integer

Curve = Mapping[str, Any]


@dataclass(frozen=True)
class EarlyStop:
    """The evaluation with the lowest validation loss.

    Attributes:
        index: Which evaluation (epoch) it was, from 0.
        step: Optimizer steps until then; epochs, if nobody said how many steps one has.
        val_loss: The lowest value of the monitored loss.
        metrics: Dict of name to every other number of that evaluation.
    """

    index: int
    step: int
    val_loss: float
    metrics: dict[str, float]


def early_stop(
    history: keras.callbacks.History | Mapping[str, Any],
    steps_per_epoch: int | None = None,
    monitor: str = "val_loss",
) -> EarlyStop:
    """Finds the step of minimal validation loss; the first of equal ones.

    Args:
        history: What `fit` returns, its `.history`, the record of a run's training, or a
            record's `curve`: dict of name to a list with one value an evaluation. Values
            that are NaN, Inf or None are skipped.
        steps_per_epoch: Integer, optimizer steps between two evaluations. Default: one,
            so that steps are epochs. A list `"step"` in the history goes before it.
        monitor: The name of the loss to minimize.

    Returns:
        An `EarlyStop`.

    Raises:
        ValueError: If the history has no such list or no finite value in it, or its lists
            are not equally long.

    Source: Frankle & Carbin, 1803.03635, section 1.

    Example:

    >>> history = {"val_loss": [0.9, 0.4, 0.5], "val_accuracy": [0.6, 0.8, 0.9]}
    >>> found = early_stop(history, steps_per_epoch=100)
    >>> found.step, found.val_loss, found.metrics
    (200, 0.4, {'val_accuracy': 0.8})
    """
    if steps_per_epoch is not None:
        check_integer("steps_per_epoch", steps_per_epoch, least=1)
    curve = _curve(history)
    _check(curve, monitor)
    losses = [(_number(v), i) for i, v in enumerate(curve[monitor])]
    finite = [(v, i) for v, i in losses if v is not None]
    if not finite:
        raise ValueError(
            f"No value of {monitor!r} is finite, so none is the lowest. Received: "
            f"{list(curve[monitor])[:5]}"
        )
    lowest, index = min(finite)
    step = int(curve["step"][index]) if "step" in curve else (index + 1) * (steps_per_epoch or 1)
    others = {k: _number(v[index]) for k, v in curve.items() if k not in ("step", monitor)}
    return EarlyStop(index, step, lowest, {k: v for k, v in others.items() if v is not None})


def speed_up(found: EarlyStop, dense: EarlyStop) -> float:
    """How many times sooner than the dense network a ticket reaches its early stop.

    Args:
        found: The ticket's early stop.
        dense: The dense network's, in the same steps.

    Returns:
        `dense.step / found.step`: 2.51 is what the papers call "2.51x faster".

    Raises:
        ValueError: If the ticket was best at step 0, before it trained.

    Source: Frankle & Carbin, 1803.03635, section 3.

    Example:

    >>> speed_up(EarlyStop(0, 1000, 0.1, {}), dense=EarlyStop(4, 5000, 0.1, {}))
    5.0
    """
    if found.step < 1:
        raise ValueError(
            "A ticket that is best before it trains has no speed-up. Received: an early stop at "
            f"step {found.step}"
        )
    return dense.step / found.step


def _curve(history: Any) -> Curve:
    """The lists of a History, of a record, or of a curve; without what is no list."""
    found = getattr(history, "history", history)
    if isinstance(found, Mapping) and isinstance(found.get("curve"), Mapping):
        found = found["curve"]
    if not isinstance(found, Mapping):
        raise ValueError(
            "Expected a keras History, its `.history`, a run's record or its curve. Received: "
            f"{type(history).__name__}"
        )
    return {k: v for k, v in found.items() if isinstance(v, (list, tuple, np.ndarray))}


def _check(curve: Curve, monitor: str) -> None:
    if monitor not in curve:
        raise ValueError(
            f"There is no list {monitor!r} in the history. Its lists: {list(curve)}. Train with "
            "`validation_data`, or name another one by `monitor`."
        )
    lengths = {k: len(v) for k, v in curve.items()}
    if set(lengths.values()) != {lengths[monitor]}:
        raise ValueError(
            "The history's lists are not equally long (with `validation_freq`, say), so that an "
            f"evaluation's step is unknown. Received: {lengths}. Keep those of one length, and "
            'add a list "step".'
        )


def _number(value: Any) -> float | None:
    """A finite number as a float; `None` for anything else."""
    if value is None or np.size(value) != 1:
        return None
    try:
        number = float(np.asarray(value).item())
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
