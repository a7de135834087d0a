"""Controls of a finished search: other tickets, trained as the search trains its own."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from keras_lottery import weights
from keras_lottery.controls import Frozen
from keras_lottery.experiments.config import Config, from_dict
from keras_lottery.experiments.plan import GIVEN, NAMED, Task, parse_control
from keras_lottery.experiments.searching import Replicate, Start
from keras_lottery.experiments.stopping import stopping
from keras_lottery.experiments.store import Place
from keras_lottery.experiments.training import Trainer
from keras_lottery.tickets import Ticket

_BY_SCOPE = ("one_shot", "prune_at_init_magnitude")


def run_branch(replicate: Replicate, task: Task, data_dir: str | None = None) -> None:
    """Trains a control at those of its rounds that are missing, where the search has a ticket.

    Raises:
        ValueError: If the control does not fit the ticket or the data.
        SearchStoppedError: If it cannot go on, as with NaN; that is written down.
    """
    name, options = parse_control(task.kind)
    trainer = transferred(replicate.trainer.config, task.kind, data_dir)
    rounds = [r for r in task.rounds if replicate.store.place(replicate.index, r).done]
    for r in rounds:
        place = replicate.store.place(replicate.index, r, task.kind, task.seed)
        if not place.done:
            with stopping(place.folder.parent, r):
                start = _start(replicate, task, name, options, r, trainer)
                replicate.train(place, start, task.kind, r, task.seed, trainer)


def transferred(config: Config, spec: str, data_dir: str | None) -> Trainer | None:
    """The trainer of a transfer; `None` for a control that trains as the search does."""
    name, options = parse_control(spec)
    if name != "transfer":
        return None
    return _trainer(from_dict({**asdict(config), **options}), data_dir)


def check_branch(trainer: Trainer, spec: str, data_dir: str | None) -> None:
    """Checks that a control can be trained at all.

    Raises:
        ValueError: If an option is out of range, or a transfer's settings cannot work or change
            the shapes of the weights.
    """
    name, options = parse_control(spec)
    other = transferred(trainer.config, spec, data_dir)
    if name in NAMED:
        dense = _fresh(trainer, trainer.config.seed)
        try:
            _made(trainer, name, options, lambda what: 0 if what == "seed" else dense)
        except ValueError as error:
            raise ValueError(f"The control {spec!r} cannot be made: {error}") from error
    if other is None:
        return
    here, there = (
        {p: tuple(v.shape) for p, v in weights.all_weights(t.model).items()}
        for t in (trainer, other)
    )
    if list(here.values()) != list(there.values()):
        raise ValueError(
            f"{spec!r} needs a model with the weights of the search's, since it trains the "
            f"tickets there. Expected: {here}. Received: {there}"
        )


@functools.lru_cache(maxsize=2)
def _trainer(config: Config, data_dir: str | None) -> Trainer:
    return Trainer(config, data_dir)


def _start(
    replicate: Replicate,
    task: Task,
    name: str,
    options: dict[str, Any],
    round: int,
    trainer: Trainer | None,
) -> Start:
    if trainer is not None:
        fresh = trainer.initial(replicate.seed)
        return Start(replicate.ticket(round), fresh, trainer.lengths.total)
    total = replicate.trainer.lengths.total
    if name == "dense":
        seed = _seed(replicate.seed, task.seed)
        state = replicate.trainer.initial(seed)
        return Start(_fresh(replicate.trainer, seed), state, total)
    if name == "continued_training":
        return Start(_continued(replicate, task, round), replicate.rewind_point(), total)
    ticket = control(replicate, name, options, round, task.seed)
    return Start(ticket, replicate.rewind_point(), total)


def control(
    replicate: Replicate, name: str, options: dict[str, Any], round: int, seed: int
) -> Ticket | Frozen:
    """The control of a round's ticket; it is given what it names."""
    given: dict[str, Callable[[], Any]] = {
        "ticket": lambda: replicate.ticket(round),
        "seed": lambda: _seed(replicate.seed, seed, round),
        "dense": lambda: _dense(replicate),
        "trained": lambda: replicate.trained(0),
    }
    return _made(replicate.trainer, name, options, lambda what: given[what]())


def _made(
    trainer: Trainer, name: str, options: dict[str, Any], give: Callable[[str], Any]
) -> Ticket | Frozen:
    """A control, given its options and what else it names."""
    make = NAMED[name]
    wanted = [p for p in inspect.signature(make).parameters if p in GIVEN]
    if name in _BY_SCOPE and trainer.config.scope != "layerwise":
        options = {"counts": "global", **options}
    given = {p: trainer.model if p == "model" else give(p) for p in wanted}
    made: Ticket | Frozen = make(**given, **options)
    return made


def _fresh(trainer: Trainer, seed: int) -> Ticket:
    """The dense network with new weights."""
    values = trainer.initial(seed).variables
    return Ticket(trainer.full_masks, {p: values[p] for p in weights.all_weights(trainer.model)})


def _dense(replicate: Replicate) -> Ticket:
    """All values at the rewind point; the ticket of round 0 holds those of step 0."""
    ticket, rewind = replicate.ticket(0), replicate.rewind_point()
    return replace(ticket, weights={p: rewind.variables[p] for p in ticket.weights})


def _continued(replicate: Replicate, task: Task, round: int) -> Ticket:
    """The weights of the rewind point under the masks of a search without resets."""
    folder = replicate.store.branch(replicate.index, task.kind, task.seed) / "chain"
    masks = replicate.continued(
        round, lambda r: Place(folder / f"round_{r:02d}"), f"{task.kind}/chain"
    )
    dense = _dense(replicate)
    about = {**dense.metadata, "control": {"name": "continued_training"}}
    return replace(dense, masks=masks, metadata=about)


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] % 2**31)
