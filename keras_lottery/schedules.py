"""Schedules decide how many weights each round leaves alive. NumPy only.

A schedule is asked for a `Keep`: a function `(alive, total) -> survivors` that a
scope applies to every group in which weights compete.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from keras_lottery.asking import as_density, as_sparsity, ask, ask_all, is_turn

Keep = Callable[[int, int], int]


def keep_fraction(fraction: float) -> Keep:
    """Removes `round(fraction * alive)` of the alive weights.

    Example:

    >>> keep_fraction(0.2)(100, 1000)
    80
    """
    return lambda alive, total: alive - round(fraction * alive)


def keep_density(density: float) -> Keep:
    """Leaves `round(density * total)` alive, never more than are alive now.

    Example:

    >>> keep_density(0.2)(100, 1000)
    100
    """
    return lambda alive, total: min(alive, round(density * total))


@dataclass(frozen=True)
class KeepSparsity:
    """Leaves as many alive as tfmot does at a sparsity, never more than are alive now.

    Rounds in the sparsity's own precision and leaves at least one. Scopes of whole blocks
    and channels ask it for a number of those, not of weights, as tfmot does.

    Args:
        sparsity: NumPy float in [0, 1), the pruned fraction.

    Example:

    >>> KeepSparsity(np.float32(0.8))(100, 1000), KeepSparsity(np.float32(0.8))(2, 2)
    (100, 1)
    """

    sparsity: "np.floating[Any]"

    def __call__(self, alive: int, total: int) -> int:
        kind = type(self.sparsity)
        return min(alive, max(1, round(float(kind(total) * (kind(1) - self.sparsity)))))


class Schedule(Protocol):
    """Anything that says what survives at the start of a round.

    `keep(round, step)` is asked at the start of rounds 1, 2, ...; `step` counts
    the optimizer steps since the search began. `check(rounds)` raises a
    `ValueError` before training if the schedule cannot serve that many rounds.
    """

    def keep(self, round: int, step: int) -> Keep: ...

    def check(self, rounds: int | None) -> int | None: ...


ScheduleLike = float | Sequence[float] | Callable[[int], Any] | Schedule


@dataclass(frozen=True)
class Fraction:
    """The same fraction of the survivors goes after each round (1803.03635).

    Args:
        fraction: Float in (0, 1).

    Example:

    >>> Fraction(0.2).keep(round=3, step=0)(100, 200)
    80
    """

    fraction: float

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ValueError(
                "`prune_fraction` must lie strictly between 0 and 1: the fraction of the "
                f"surviving weights removed after each round. Received: {self.fraction}"
            )

    def keep(self, round: int, step: int) -> Keep:
        return keep_fraction(self.fraction)

    def check(self, rounds: int | None) -> int | None:
        return rounds


@dataclass(frozen=True)
class Densities:
    """Densities given round by round; the first belongs to the dense round 0.

    Args:
        densities: Sequence of floats in (0, 1], the first 1.0, never growing.

    Example:

    >>> Densities((1.0, 0.5, 0.25)).keep(round=2, step=0)(100, 200)
    50
    """

    densities: tuple[float, ...]

    def __post_init__(self) -> None:
        check_densities(self.densities)

    def keep(self, round: int, step: int) -> Keep:
        return keep_density(self.densities[round])

    def check(self, rounds: int | None) -> int | None:
        if rounds is not None and rounds != len(self.densities):
            raise ValueError(
                f"The schedule names {len(self.densities)} densities, one for each round. "
                f"Received: {rounds} rounds. Pass as many densities as rounds."
            )
        return len(self.densities)


@dataclass(frozen=True)
class Curve:
    """A callable `round -> density`.

    Example:

    >>> Curve(lambda r: 0.5**r).keep(round=2, step=0)(100, 100)
    25
    """

    function: Callable[[int], float]

    def keep(self, round: int, step: int) -> Keep:
        return keep_density(self._density(round))

    def check(self, rounds: int | None) -> int | None:
        if rounds is not None:
            check_densities([self._density(r) for r in range(rounds)])
        return rounds

    def _density(self, round: int) -> float:
        return as_density(self.function(round), f"in round {round} from {self.function!r}")


@dataclass(frozen=True)
class StepSchedule:
    """A tfmot `PruningSchedule`, asked at the step at which a round starts.

    Recognised by its answers, `schedule(step) -> (should_prune, sparsity)`; tfmot itself is not
    imported. Rounds prune where they start: if it prunes at a step inside a round, the next
    round's start makes up for it, with a warning.

    Example:

    >>> class FromStep10:
    ...     def __call__(self, step):
    ...         return step >= 10, 0.75
    >>> StepSchedule(FromStep10()).keep(round=1, step=12)(100, 100)
    25
    """

    schedule: Callable[[Any], Any]

    def keep(self, round: int, step: int) -> Keep:
        prunes, sparsity = ask(self.schedule, step)
        if prunes:
            return KeepSparsity(sparsity)
        answers = ask_all(self.schedule, np.arange(1, step))
        for due in range(step - 1, 0, -1):
            if answers is None:
                prunes, sparsity = ask(self.schedule, due)
            else:
                prunes, sparsity = answers[0][due - 1], answers[1][due - 1]
            if prunes:
                return self._late(due, step, KeepSparsity(as_sparsity(sparsity, due)))
        return keep_density(1.0)

    def _late(self, due: int, step: int, keep: KeepSparsity) -> Keep:
        """Tells of it only if something is left to prune."""

        def keep_late(alive: int, total: int) -> int:
            if keep(alive, total) < alive:
                warnings.warn(
                    f"The schedule prunes at step {due}, inside a round, but rounds prune where "
                    f"they start: its sparsity {float(keep.sparsity):.4g} comes at step {step}. "
                    "Choose a frequency that divides the steps of a round (1 does), or prune "
                    "inside one training with `GradualPruning`.",
                    stacklevel=2,
                )
            return keep(alive, total)

        return keep_late

    def check(self, rounds: int | None) -> int | None:
        ask(self.schedule, 0)
        return rounds


def check_densities(densities: Sequence[float]) -> None:
    """Raises unless densities start at 1.0, stay in (0, 1] and never grow."""
    if not densities or densities[0] != 1 or not all(0 < d <= 1 for d in densities):
        raise ValueError(
            "A schedule gives one density in (0, 1] for each round, starting with 1.0 for "
            f"the dense round 0. Received: {list(densities)}"
        )
    for r in range(1, len(densities)):
        if densities[r] > densities[r - 1]:
            raise ValueError(
                "A schedule must not grow: what is pruned stays pruned. Received density "
                f"{densities[r]} in round {r} after {densities[r - 1]} in round {r - 1}."
            )


def resolve(schedule: ScheduleLike) -> Schedule:
    """Turns what users write into a `Schedule`.

    Args:
        schedule: A fraction of the survivors in (0, 1); a sequence of densities,
            one a round, the first 1.0; a callable `round -> density`; a tfmot
            `PruningSchedule` or any callable `step -> (should_prune, sparsity)`; or an
            object with `keep` and `check`. Callables are told apart by their answer to 0.

    Raises:
        ValueError: If it is none of these or out of range.

    Example:

    >>> resolve(0.2)
    Fraction(fraction=0.2)
    >>> resolve([1.0, 0.5])
    Densities(densities=(1.0, 0.5))
    """
    if hasattr(schedule, "keep") and hasattr(schedule, "check"):
        return schedule
    if callable(schedule):
        ask_once: Any = schedule
        answer = ask_once(np.int64(0))
        if is_turn(answer):
            return StepSchedule(schedule)
        as_density(answer, f"in round 0 from {schedule!r}")
        return Curve(schedule)
    try:
        if isinstance(schedule, (bool, str)):
            raise TypeError
        if hasattr(schedule, "__len__"):
            return Densities(tuple(float(d) for d in schedule))  # type: ignore[union-attr]
        number = float(schedule)  # type: ignore[arg-type]
    except TypeError:
        raise ValueError(
            "`prune_fraction` must be a fraction in (0, 1) or a schedule: a sequence of densities, "
            f"a callable `round -> density` or a tfmot PruningSchedule. Received: {schedule!r}"
        ) from None
    return Fraction(number)
