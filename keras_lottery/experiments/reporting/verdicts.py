"""Where each kind of training still matches the dense network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from keras_lottery.experiments.reporting.rows import Record
from keras_lottery.experiments.reporting.statistics import (
    ACCURACY,
    STEP,
    Point,
    Summary,
    dense,
    points,
)
from keras_lottery.experiments.reporting.styles import label, percent

_ROUNDING = 1e-12


@dataclass(frozen=True)
class Verdict:
    """Where a kind of training still matches the dense network.

    Accuracies are mean test accuracies at the early stop, which validation loss chose.

    Attributes:
        kind: `"ticket"` or the control.
        margin: What counts as a match: an accuracy of the dense one's minus this, or above.
        basis: What the margin is, in words.
        matches_to: The smallest density of a pruned round that matches, or `None`.
        falls_at: The next density below, from which on no round matches, or `None`.
        exceptions: How many denser pruned rounds do not match all the same.
        peak: The highest accuracy, or `None` if no round has one.
        peak_density: Its density.
        fastest: The earliest early stop of the pruned rounds that match, over the dense
            network's step; `None` if none matches.
        fastest_density: Its density.
    """

    kind: str
    margin: float
    basis: str
    matches_to: float | None
    falls_at: float | None
    exceptions: int
    peak: float | None
    peak_density: float | None
    fastest: float | None
    fastest_density: float | None

    def sentence(self) -> str:
        """The verdict in words."""
        within = f"within {100 * self.margin:.2g} points of the dense accuracy"
        text = f"{label(self.kind)}: "
        if self.matches_to is None:
            text += f"never {within}"
        else:
            rounds = "round" if self.exceptions == 1 else "rounds"
            text += f"{within} down to {percent(self.matches_to)}% density"
            text += f" (but for {self.exceptions} denser {rounds})" if self.exceptions else ""
            falls = self.falls_at
            text += ", the last round" if falls is None else f", below from {percent(falls)}% on"
        if self.peak is not None and self.peak_density is not None:
            text += f"; peak {100 * self.peak:.2f}% at {percent(self.peak_density)}%"
        if self.fastest is not None and self.fastest_density is not None:
            text += f"; earliest stop {self.fastest:.2f} of the dense step"
            text += f" at {percent(self.fastest_density)}%"
        return text


def verdicts(records: Sequence[Record], n_test: int | None) -> list[Verdict]:
    """One verdict for the ticket and for each control that has a pruned round.

    Args:
        records: The records of one run, see `RunData`.
        n_test: The number of test images, used where the dense network has one
            replicate or two.

    Returns:
        The ticket's verdict first; nothing while the dense network has not finished.

    Raises:
        ValueError: If there is one dense replicate and `n_test` is not a count.

    Example:

    >>> rows = [
    ...     {"kind": "ticket", "round": r, "density": d, "early_stop": {"test_accuracy": a}}
    ...     for r, (d, a) in enumerate([(1.0, 0.98), (0.5, 0.98), (0.25, 0.90)])
    ... ]
    >>> verdicts(rows, n_test=500)[0].sentence().split(";")[0]
    'ticket: within 0.89 points of the dense accuracy down to 50% density, below from 25% on'
    """
    rounds = points(records)
    start = dense(rounds)
    if start is None or not start.values[ACCURACY].n:
        return []
    margin, basis = _margin(start.values[ACCURACY], n_test)
    found = []
    for kind in dict.fromkeys(p.kind for p in rounds):
        own = sorted((p for p in rounds if p.kind == kind), key=lambda p: -p.density)
        if any(p.density < 1 for p in own):
            found.append(_verdict(kind, own, start, margin, basis))
    return found


def _margin(accuracy: Summary, n_test: int | None) -> tuple[float, str]:
    """What counts as a match, and its name.

    The deviation of two replicates may be next to nothing by chance: then the error of a
    single one, which the number of test images gives, is taken if it is larger.
    """
    n = accuracy.replicates
    deviation = f"one standard deviation of the dense test accuracy over {n} replicates"
    if n > 2 or (n == 2 and n_test is None):
        return accuracy.std, deviation
    if n_test is None or n_test < 1:
        raise ValueError(
            "With one dense replicate a match is judged by the number of test images, which must "
            f'be 1 or more (`config["facts"]["sizes"]["test"]`). Received: {n_test}'
        )
    error = math.sqrt(2 * max(accuracy.mean * (1 - accuracy.mean), 1e-9) / n_test)
    if n == 2 and accuracy.std > error:
        return accuracy.std, deviation
    return error, f"one standard error of the difference of two accuracies on {n_test} test images"


def _verdict(kind: str, own: list[Point], start: Point, margin: float, basis: str) -> Verdict:
    """The verdict of the rounds `own`, densest first."""
    pruned = [p for p in own if p.density < 1]
    least = start.values[ACCURACY].mean - margin - _ROUNDING
    ok = [p.values[ACCURACY].mean >= least for p in pruned]
    n = len(ok) - ok[::-1].index(True) if True in ok else 0
    best = max((p for p in own if p.values[ACCURACY].n), key=_accuracy, default=None)
    ratio, at = _fastest([p for p, fits in zip(pruned, ok, strict=True) if fits], start)
    return Verdict(
        kind=kind,
        margin=margin,
        basis=basis,
        matches_to=pruned[n - 1].density if n else None,
        falls_at=pruned[n].density if n < len(pruned) else None,
        exceptions=ok[:n].count(False),
        peak=None if best is None else _accuracy(best),
        peak_density=None if best is None else best.density,
        fastest=ratio,
        fastest_density=at,
    )


def _accuracy(point: Point) -> float:
    return point.values[ACCURACY].mean


def _fastest(matching: list[Point], start: Point) -> tuple[float | None, float | None]:
    """The least early-stop step over the dense one, and its density."""
    timed = [p for p in matching if p.values[STEP].n]
    step = start.values[STEP].mean
    if not timed or not step > 0:
        return None, None
    first = min(timed, key=lambda p: p.values[STEP].mean)
    return first.values[STEP].mean / step, first.density
