"""How much of an experiment is to be run: rounds, replicates, controls; and as which tasks."""

import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from keras_lottery.controls import FREEZING
from keras_lottery.controls import NAMED as TICKETS
from keras_lottery.experiments import config as config_
from keras_lottery.experiments.store import TICKET
from keras_lottery.settings import check_integer

# What a control may ask for besides its options; the runner knows it.
NAMED: dict[str, Callable[..., Any]] = {**TICKETS, **FREEZING}
GIVEN = ("ticket", "model", "seed", "dense", "trained")
OWN = {
    "dense": "the dense network from another initialization",
    "continued_training": "masks of a search that never resets its weights",
    "transfer": "the ticket on other data, or with other settings: transfer:dataset=mnist",
}


def control_names() -> list[str]:
    """All controls that a run can have."""
    return sorted([*NAMED, *OWN])


def parse_control(spec: str) -> tuple[str, dict[str, Any]]:
    """A control's name and options.

    Args:
        spec: `"name"` or `"name:option=value:option=value"`.

    Raises:
        ValueError: If there is no such control, or it has no such option.

    Example:

    >>> parse_control("noise:scale=0.5")
    ('noise', {'scale': 0.5})
    """
    name, *rest = re.split(r":(?=\w+=)", spec)
    if name not in NAMED and name not in OWN:
        known = name.partition(":")[0]
        if known in NAMED or known in OWN:
            raise ValueError(f"Expected options as `{known}:option=value`. Received: {spec!r}")
        raise ValueError(f"Unknown control {name!r}. The controls are: {control_names()}")
    options = {key: _literal(value) for key, _, value in (text.partition("=") for text in rest)}
    _check_options(name, options)
    return name, options


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    if name == "transfer":
        if not options:
            raise ValueError("`transfer` needs a setting to change: transfer:dataset=mnist")
        config_.from_dict(options)
        return
    known = list(inspect.signature(NAMED[name]).parameters) if name in NAMED else []
    known = [p for p in known if p not in GIVEN]
    unknown = [key for key in options if key not in known]
    if unknown:
        raise ValueError(f"The control {name!r} has no option {unknown}. Its options: {known}")
    missing = [p for p in known if p not in options and _required(name, p)]
    if missing:
        raise ValueError(f"The control {name!r} needs {missing}: {name}:{missing[0]}=...")
    for key, value in options.items():
        _check_value(f"{name}:{key}", value, typing.get_type_hints(NAMED[name])[key])


def _check_value(what: str, value: Any, kind: Any) -> None:
    if typing.get_origin(kind) is Literal:
        good, words = value in typing.get_args(kind), f"one of {list(typing.get_args(kind))}"
    elif kind is bool:
        good, words = isinstance(value, bool), "true or false"
    else:
        good = isinstance(value, int | float) and not isinstance(value, bool)
        words = "a number"
    if not good:
        raise ValueError(f"`{what}` must be {words}. Received: {value!r}")


def _required(name: str, parameter: str) -> bool:
    return inspect.signature(NAMED[name]).parameters[parameter].default is inspect.Parameter.empty


def _literal(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)


@dataclass(frozen=True)
class Branch:
    """A control of a run.

    Attributes:
        control: Its spec, see `parse_control`.
        seeds: How many times, with seeds 0, 1, ...
        rounds: Of which rounds' tickets; `None`: of all but the dense one. The control
            "dense" is trained once, whatever they are.
    """

    control: str
    seeds: int = 1
    rounds: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        parse_control(self.control)
        check_integer("seeds", self.seeds, least=1)
        for r in self.rounds or ():
            check_integer("rounds", r, least=0)
        if self.control == "dense":
            object.__setattr__(self, "rounds", None)

    def chosen(self, rounds: int) -> list[int]:
        """Its rounds in a search of so many."""
        if self.control == "dense":
            return [0]
        named = range(1, rounds) if self.rounds is None else self.rounds
        return [r for r in named if r < rounds]


@dataclass(frozen=True)
class Task:
    """Trainings that one process does one after another.

    Attributes:
        replicate: Whose.
        kind: `"ticket"` for the search, or a control's spec.
        seed: Of the control.
        rounds: Which, in order.
    """

    replicate: int
    kind: str
    seed: int
    rounds: tuple[int, ...]

    @property
    def title(self) -> str:
        """A name for people."""
        what = "search" if self.kind == TICKET else self.kind.replace("_", " ")
        return f"{what}{f' {self.seed}' if self.seed else ''}, replicate {self.replicate}"


@dataclass(frozen=True)
class Plan:
    """How much of an experiment is to be run.

    Attributes:
        rounds: Trainings of a search, the dense one included.
        replicates: Searches, each with a seed of its own.
        branches: Controls of each.

    Example:

    >>> plan = Plan(rounds=3, branches=(Branch("reinitialize"),))
    >>> [task.kind for task in plan.searches()], [task.rounds for task in plan.controls()]
    (['ticket'], [(1, 2)])
    """

    rounds: int = 16
    replicates: int = 1
    branches: tuple[Branch, ...] = ()

    def __post_init__(self) -> None:
        check_integer("rounds", self.rounds, least=1)
        check_integer("replicates", self.replicates, least=1)

    def searches(self) -> list[Task]:
        """The searches: what everything else needs."""
        return [Task(r, TICKET, 0, tuple(range(self.rounds))) for r in range(self.replicates)]

    def controls(self) -> list[Task]:
        """The controls, replicate by replicate."""
        return list(self._controls())

    def _controls(self) -> Iterator[Task]:
        for r in range(self.replicates):
            for branch in self.branches:
                rounds = tuple(branch.chosen(self.rounds))
                for seed in range(branch.seeds if rounds else 0):
                    yield Task(r, branch.control, seed, rounds)

    def joined(self, other: "Plan") -> "Plan":
        """All of both plans: the larger numbers, and every control of either."""
        found: dict[str, list[Branch]] = {}
        for b in self.branches + other.branches:
            found.setdefault(b.control, []).append(b)
        return Plan(
            max(self.rounds, other.rounds),
            max(self.replicates, other.replicates),
            tuple(b for same in found.values() for b in _joined(same)),
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Plan":
        """From what `to_dict` gave, through JSON."""
        branches = [
            Branch(b["control"], b["seeds"], None if b["rounds"] is None else tuple(b["rounds"]))
            for b in values["branches"]
        ]
        return cls(values["rounds"], values["replicates"], tuple(branches))


def branches(
    controls: Sequence[str], seeds: int = 1, rounds: Sequence[int] = ()
) -> tuple[Branch, ...]:
    """Branches of the same seeds and rounds; a control named twice counts once."""
    chosen = tuple(sorted(set(rounds))) or None
    return tuple(Branch(control, seeds, chosen) for control in dict.fromkeys(controls))


def _joined(found: list[Branch]) -> list[Branch]:
    """All that branches of one control ask for; round 0 beside "all but the dense one" too."""
    control, seeds = found[0].control, max(b.seeds for b in found)
    named = {r for b in found for r in b.rounds or ()}
    if all(b.rounds is not None for b in found):
        return [Branch(control, seeds, tuple(sorted(named)))]
    every = [Branch(control, seeds)]
    return [*every, Branch(control, seeds, (0,))] if 0 in named else every
