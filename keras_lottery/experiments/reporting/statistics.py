"""Means and intervals over replicates."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

import numpy as np

from keras_lottery.experiments.reporting.rows import TICKET, Record, by_kind, number

Interval = Literal["range", "ci"]
INTERVALS: dict[Interval, str] = {
    "range": "minimum to maximum over all trainings",
    "ci": "95% t confidence interval of the mean over replicates",
}

ACCURACY, STEP, END = "early_stop_test_accuracy", "early_stop_step", "end_test_accuracy"
TRAIN, SECONDS = "end_train_accuracy", "seconds"
METRICS = {
    ACCURACY: ("early_stop", "test_accuracy"),
    STEP: ("early_stop", "step"),
    END: ("end", "test_accuracy"),
    TRAIN: ("end", "train_accuracy"),
    SECONDS: ("seconds",),
}


@dataclass(frozen=True)
class Summary:
    """One number over the replicates of a round.

    Trainings of one replicate (controls with several branch seeds) share their ticket, so they
    are averaged first: the mean, its deviation and its interval are those of the replicates.

    Attributes:
        n: How many trainings have the number.
        replicates: How many replicates have it.
        mean: Mean over replicates; NaN if there is none.
        std: Sample standard deviation over replicates; NaN below two.
        least: The least number of all trainings.
        most: The greatest number of all trainings.
    """

    n: int
    replicates: int
    mean: float
    std: float
    least: float
    most: float

    def bar(self, interval: Interval) -> tuple[float, float]:
        """The ends of the error bar; the mean twice where an interval does not exist."""
        if interval == "range":
            return self.least, self.most
        if self.replicates < 2:
            return self.mean, self.mean
        half = t_quantile(self.replicates - 1) * self.std / math.sqrt(self.replicates)
        return self.mean - half, self.mean + half


def summarize(replicates: Mapping[int, Sequence[float]]) -> Summary:
    """The summary of one number.

    Args:
        replicates: Replicate to the numbers of its trainings; NaN and Inf are left out.

    Example:

    >>> found = summarize({0: [1.0], 1: [2.0, 4.0], 2: [5.0]})
    >>> found.n, found.replicates, found.mean, found.std, found.least, found.most
    (4, 3, 3.0, 2.0, 1.0, 5.0)
    """
    finite = [[v for v in values if math.isfinite(v)] for values in replicates.values()]
    means = [fmean(values) for values in finite if values]
    numbers = [v for values in finite for v in values]
    return Summary(
        n=len(numbers),
        replicates=len(means),
        mean=fmean(means) if means else math.nan,
        std=stdev(means) if len(means) > 1 else math.nan,
        least=min(numbers, default=math.nan),
        most=max(numbers, default=math.nan),
    )


def t_quantile(freedom: int, probability: float = 0.95) -> float:
    """The half width that holds `probability` of Student's t distribution.

    With t = sqrt(freedom) tan(a), the density of the angle a is cos(a)^(freedom - 1).

    Args:
        freedom: Degrees of freedom, 1 or more.
        probability: In (0, 1).

    Example:

    >>> round(t_quantile(2), 3)
    4.303
    """
    angle = np.linspace(0, math.pi / 2, 20_001)
    heights = np.cos(angle) ** (freedom - 1)
    mass = np.concatenate([[0.0], np.cumsum(heights[1:] + heights[:-1])])
    return math.sqrt(freedom) * math.tan(float(np.interp(probability * mass[-1], mass, angle)))


@dataclass(frozen=True)
class Point:
    """A round of one kind over its trainings.

    Attributes:
        kind: `"ticket"` or the control.
        round: The round.
        density: Mean density, in [0, 1].
        n: The number of trainings.
        values: Summary of each of `early_stop_test_accuracy`, `early_stop_step`,
            `end_test_accuracy`, `end_train_accuracy` and `seconds`.
    """

    kind: str
    round: int
    density: float
    n: int
    values: dict[str, Summary]


def points(records: Sequence[Record]) -> list[Point]:
    """One point for each kind and round; the ticket's first, each kind by round.

    Example:

    >>> rows = [{"kind": "ticket", "replicate": r, "round": 0, "density": 1.0} for r in (0, 1)]
    >>> [(p.kind, p.round, p.density, p.n) for p in points(rows)]
    [('ticket', 0, 1.0, 2)]
    """
    found = []
    for kind, rows in by_kind(records).items():
        for index in sorted({row["round"] for row in rows}):
            found.append(_point(kind, index, [row for row in rows if row["round"] == index]))
    return found


def _point(kind: str, index: int, rows: list[Record]) -> Point:
    replicates: dict[int, list[Record]] = {}
    for row in rows:
        replicates.setdefault(row.get("replicate", 0), []).append(row)
    values = {
        name: summarize({r: [number(row, *keys) for row in own] for r, own in replicates.items()})
        for name, keys in METRICS.items()
    }
    return Point(kind, index, fmean(row["density"] for row in rows), len(rows), values)


def dense(rounds: Sequence[Point]) -> Point | None:
    """The ticket's round 0, the dense network, if it has finished."""
    return next((p for p in rounds if p.kind == TICKET and p.round == 0), None)
