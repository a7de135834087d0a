"""Schedules decide how many weights each round leaves alive. Standard library only.

A schedule is asked for a `Keep`: a function `(alive, total) -> survivors` that a
scope applies to every group in which weights compete.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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
        return keep_density(float(self.function(round)))

    def check(self, rounds: int | None) -> int | None:
        if rounds is not None:
            check_densities([float(self.function(r)) for r in range(rounds)])
        return rounds


@dataclass(frozen=True)
class StepSchedule:
    """A tfmot `PruningSchedule`, asked at the step at which a round starts.

    Recognised by protocol, `schedule(step) -> (should_prune, sparsity)` together
    with `get_config`; tfmot itself is not imported.
    """

    schedule: Callable[[int], Any]

    def keep(self, round: int, step: int) -> Keep:
        should_prune, sparsity = self.schedule(step)
        return keep_density(1 - float(sparsity)) if bool(should_prune) else keep_density(1.0)

    def check(self, rounds: int | None) -> int | None:
        try:
            _, sparsity = self.schedule(0)
            float(sparsity)
        except (TypeError, ValueError):
            raise ValueError(
                "A schedule with `get_config` is taken for a tfmot PruningSchedule, which returns "
                f"`(should_prune, sparsity)` for a step. Received: {self.schedule!r}"
            ) from None
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
            `PruningSchedule`; or an object with `keep` and `check`.

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
        return StepSchedule(schedule) if hasattr(schedule, "get_config") else Curve(schedule)
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
