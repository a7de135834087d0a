"""What of a run is done, running and missing."""

import statistics
from dataclasses import dataclass, replace

from keras_lottery.experiments import checkpoints
from keras_lottery.experiments.plan import Plan, Task
from keras_lottery.experiments.stopping import stopped
from keras_lottery.experiments.store import TICKET, Place, Store


@dataclass(frozen=True)
class State:
    """The state of one task.

    Attributes:
        task: A search, or a control of one.
        done: How many of its trainings have finished.
        on_the_way: Rounds that have begun, with the step of their last checkpoint (`None`
            before the first).
        stopped: Why a search could not go on, or `None`.
    """

    task: Task
    done: int
    on_the_way: tuple[tuple[int, int | None], ...]
    stopped: str | None

    @property
    def missing(self) -> int:
        """How many trainings have not finished."""
        return len(self.task.rounds) - self.done


@dataclass(frozen=True)
class Status:
    """The state of a run.

    Attributes:
        states: Of each task, searches first.
        working: Whether a process works on the run now.
        seconds_left: By the median time of the trainings so far, on one process; `None`
            before the first has finished.
    """

    states: tuple[State, ...]
    working: bool
    seconds_left: float | None


def status(store: Store) -> Status:
    """What of a run is done, running and missing.

    Raises:
        ValueError: If the folder is no run, or a record is damaged.
    """
    plan = Plan.from_dict(store.config()["plan"])
    tasks = [_possible(store, task) for task in [*plan.searches(), *plan.controls()]]
    states = tuple(_state(store, task) for task in tasks)
    times = [float(r["seconds"]) for r in store.records()]
    missing = sum(s.missing for s in states if s.stopped is None)
    left = statistics.median(times) * missing if times else None
    return Status(states, store.locked(), left)


def _state(store: Store, task: Task) -> State:
    places = {r: store.place(task.replicate, r, task.kind, task.seed) for r in task.rounds}
    done = [r for r, place in places.items() if place.done]
    begun = [(r, _step(p)) for r, p in places.items() if p.folder.exists() and not p.done]
    stop = stopped(store.branch(task.replicate, task.kind, task.seed))
    return State(task, len(done), tuple(begun), None if stop is None else stop["reason"])


def _possible(store: Store, task: Task) -> Task:
    """A control without the rounds that its stopped search never reached."""
    stop = None if task.kind == TICKET else stopped(store.branch(task.replicate))
    if stop is None:
        return task
    return replace(task, rounds=tuple(r for r in task.rounds if r < stop["round"]))


def _step(place: Place) -> int | None:
    try:
        return checkpoints.load(place.checkpoint).snapshot.step
    except (FileNotFoundError, ValueError):
        return None
