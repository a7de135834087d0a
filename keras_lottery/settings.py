"""How a search prunes and rewinds."""

import numbers
from dataclasses import dataclass
from typing import Any, Literal

from keras_lottery import criteria, scopes, weights
from keras_lottery import schedules as schedules_

REWIND = ("weights", "learning_rate", "none")
Rewind = Literal["weights", "learning_rate", "none"]


def check_integer(name: str, value: Any, least: int | None = None) -> None:
    """Raises a `ValueError` unless `value` is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"`{name}` must be an integer. Received: {value!r}")
    if least is not None and value < least:
        raise ValueError(f"`{name}` must be at least {least}. Received: {value}")


@dataclass(frozen=True)
class Settings:
    """How a search prunes and rewinds; the arguments of `find_ticket`, checked.

    Raises:
        ValueError: At construction, for anything out of range or unknown.
    """

    prune_fraction: schedules_.ScheduleLike = 0.2
    rewind: Rewind = "weights"
    rewind_steps: int = 0
    scope: str | scopes.Scope = "global"
    criterion: str | criteria.Criterion = "magnitude"
    filters: weights.Filters | None = None
    data: tuple[Any, Any] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rewind not in REWIND:
            raise ValueError(f"`rewind` must be one of {REWIND}. Received: {self.rewind!r}")
        check_integer("rewind_steps", self.rewind_steps)
        if self.rewind_steps < 0 or (self.rewind_steps and self.rewind == "none"):
            raise ValueError(
                "`rewind_steps` counts optimizer steps from the start, so it is at least 0, and "
                f"0 where nothing is rewound. Received: {self.rewind_steps} with "
                f"rewind={self.rewind!r}"
            )
        object.__setattr__(self, "scope", scopes.resolve(self.scope))
        object.__setattr__(self, "criterion", criteria.resolve(self.criterion, self.data))
        object.__setattr__(self, "prune_fraction", schedules_.resolve(self.prune_fraction))

    def describe(self) -> dict[str, Any]:
        """The settings as JSON-like values, for a ticket's metadata."""
        return {
            "schedule": repr(self.prune_fraction),
            "rewind": self.rewind,
            "rewind_steps": self.rewind_steps,
            "scope": repr(self.scope),
            "criterion": getattr(self.criterion, "__name__", repr(self.criterion)),
            "seed": self.seed,
        }
