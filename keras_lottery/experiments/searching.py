"""A replicate's trainings in its folder: the search round by round.

A round is a function of what lies on disk: the state at the rewind point and the round
before. So a search goes on wherever it was cut off, and `find_ticket`'s rules hold: the same
`prune_round`, the same snapshots.
"""

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from keras_lottery import criteria, weights
from keras_lottery import masks as mask_ops
from keras_lottery.controls import Frozen
from keras_lottery.experiments import checkpoints
from keras_lottery.experiments.checkpoints import Curve, Progress
from keras_lottery.experiments.stopping import as_stop, stopping
from keras_lottery.experiments.store import TICKET, Place, Store
from keras_lottery.experiments.training import Trainer, at, early_stop
from keras_lottery.experiments.watching import Watch
from keras_lottery.rewinding import Snapshot
from keras_lottery.search import check_finite, prune_round
from keras_lottery.settings import Settings
from keras_lottery.tickets import Ticket
from keras_lottery.versions import versions

Places = Callable[[int], Place]
T = TypeVar("T")


@dataclass(frozen=True)
class Start:
    """What a training starts from.

    Attributes:
        ticket: Masks and weights, or those with frozen values.
        state: Optimizer, step, and the variables that a ticket does not hold.
        until: Its last optimizer step.
        order: Draws the order of the data; `None`: what the training is called does.
    """

    ticket: Ticket | Frozen
    state: Snapshot
    until: int
    order: int | None = None

    @property
    def plain(self) -> Ticket:
        """The ticket, without frozen values."""
        return self.ticket.ticket if isinstance(self.ticket, Frozen) else self.ticket

    def put(self, trainer: Trainer) -> Progress:
        """Writes all of it into the trainer's model."""
        masks = self.ticket.apply(trainer.model).masks
        named = weights.all_variables(trainer.model)
        rest = {p: v for p, v in self.state.variables.items() if p not in self.plain.weights}
        weights.write({p: named[p] for p in rest}, rest)
        self.state.restore_optimizer(trainer.model, masks)
        return Progress(Snapshot(self.state.step, {}))


class Replicate:
    """One replicate of a run: its trainer, its folder, and how it tells of its progress.

    Args:
        trainer: Of the run's config.
        store: The run's folder.
        index: The replicate's number; `config.seed + index` draws its weights.
        watch: Is told of each evaluation and training.
        checkpoint_seconds: The least time between two checkpoints; 0: at each evaluation.
    """

    def __init__(
        self,
        trainer: Trainer,
        store: Store,
        index: int,
        watch: Watch,
        checkpoint_seconds: float = 30.0,
    ):
        self.trainer, self.store, self.index = trainer, store, index
        self.watch, self.checkpoint_seconds = watch, checkpoint_seconds
        self.seed = trainer.config.seed + index

    @property
    def rewind_path(self) -> Path:
        """Where the state at the rewind point lies."""
        return self.store.replicate(self.index) / "rewind.safetensors"

    def rewind_point(self) -> Snapshot:
        """The state at the rewind point."""
        return _read(checkpoints.load, self.rewind_path, self._place(0)).snapshot

    def ticket(self, round: int) -> Ticket:
        """The ticket of a round of the search."""
        return _read(Ticket.load, self._place(round).ticket, self._place(round))

    def trained(self, round: int) -> Ticket:
        """The same masks with the weights that the round ended with."""
        return _read(Ticket.load, self._place(round).trained, self._place(round))

    def search(self, rounds: int) -> None:
        """Trains the rounds that are missing.

        Raises:
            SearchStoppedError: If the search cannot go on, as with NaN; that is written down.
        """
        self._chain(rounds, self.trainer.settings, self._place, TICKET)

    def continued(self, round: int, place: Places, kind: str) -> mask_ops.Masks:
        """Masks of a round, found by a search that never resets its weights.

        Args:
            round: The round, from 1.
            place: Where that search keeps its trainings of rounds 1, 2, ...
            kind: What its records say.
        """
        settings = replace(self.trainer.settings, rewind="learning_rate")

        def from_dense(r: int) -> Place:
            return place(r) if r else self._place(0)

        self._chain(round, settings, from_dense, kind)
        return self._next(round, settings, from_dense).plain.masks

    def _place(self, round: int) -> Place:
        return self.store.place(self.index, round)

    def _chain(self, rounds: int, settings: Settings, place: Places, kind: str) -> None:
        for r in range(rounds):
            if not place(r).done:
                with stopping(place(1).folder.parent, r):
                    start = self._first() if r == 0 else self._next(r, settings, place)
                    self.train(place(r), start, kind, r, keep_state=settings.rewind == "none")

    def _first(self) -> Start:
        state = self.trainer.initial(self.seed)
        self.store.replicate(self.index).mkdir(parents=True, exist_ok=True)
        if self.trainer.lengths.rewind == 0:
            checkpoints.save(self.rewind_path, Progress(state))
        named = weights.all_weights(self.trainer.model)
        ticket = Ticket(self.trainer.full_masks, {p: state.variables[p] for p in named})
        return Start(ticket, state, self.trainer.lengths.total)

    def _next(self, r: int, settings: Settings, place: Places) -> Start:
        """Prunes by what the round before trained, and rewinds."""
        last = place(r - 1)
        before, rewind = _read(Ticket.load, last.trained, last), self.rewind_point()
        masks = before.masks | self._masks(r, settings, before, rewind, place)
        total, names = self.trainer.lengths.total, before.weights
        if settings.rewind == "weights":
            return Start(Ticket(masks, {p: rewind.variables[p] for p in names}), rewind, total)
        if settings.rewind == "learning_rate":
            return Start(Ticket(masks, before.weights), rewind, total)
        end = _read(checkpoints.load, last.checkpoint, last).snapshot
        return Start(Ticket(masks, before.weights), end, end.step + total)

    def _masks(
        self, r: int, settings: Settings, before: Ticket, rewind: Snapshot, place: Places
    ) -> mask_ops.Masks:
        before.apply(self.trainer.model)
        steps = sum(int(place(i).record()["steps"]) for i in range(r))
        state = criteria.State(
            weights={p: before.weights[p] for p in before.masks},
            initial={p: rewind.variables[p] for p in before.masks},
            masks=before.masks,
            model=self.trainer.model,
            data=settings.data,
            seed=(self.seed, r),
        )
        with as_stop():
            return prune_round(state, settings, r, steps)

    def train(
        self,
        place: Place,
        start: Start,
        kind: str,
        round: int,
        branch_seed: int = 0,
        trainer: Trainer | None = None,
        keep_state: bool = False,
    ) -> None:
        """Trains into a folder, from its checkpoint if there is one.

        Raises:
            SearchStoppedError: If the trained weights are NaN or infinite.
        """
        trainer = trainer or self.trainer
        place.begin()
        progress = start.put(trainer)
        resumed = self._resumed(place)
        if resumed is not None and resumed.snapshot.step <= start.until:
            trainer.put(resumed.snapshot)
            self.watch.advance(resumed.snapshot.step - start.state.step, {})
            progress = resumed
        needs_rewind = kind == TICKET and round == 0 and trainer.lengths.rewind > 0
        end = trainer.train(
            progress,
            _seed(self.seed, kind, branch_seed, round) if start.order is None else start.order,
            start.until,
            self._save_rewind_point if needs_rewind else None,
            self._pause(place, progress.snapshot.step),
        )
        with as_stop():
            check_finite(end.snapshot.variables, "weights")
        record = {**self._about(kind, round, branch_seed, start), **_results(trainer, end)}
        metadata = {**start.plain.metadata, **self._metadata(record)}
        ticket = replace(start.plain, metadata=metadata)
        trained = Ticket.of(trainer.model, ticket.masks, {**metadata, "weights": "trained"})
        if keep_state:
            checkpoints.save(place.checkpoint, end)
        place.finish(record, ticket, trained, keep_state)
        self.watch.row(record)

    def _save_rewind_point(self, snapshot: Snapshot) -> None:
        checkpoints.save(self.rewind_path, Progress(snapshot))

    def _resumed(self, place: Place) -> Progress | None:
        try:
            return checkpoints.load(place.checkpoint)
        except FileNotFoundError:
            return None
        except ValueError as error:
            self.watch.say(f"{error}. That round starts anew.")
            return None

    def _pause(self, place: Place, step: int) -> Callable[..., None]:
        last, before = time.monotonic(), step

        def pause(step: int, curve: Curve, progress: Callable[[], Progress]) -> None:
            nonlocal last, before
            numbers = {name: values[-1] for name, values in curve.items()}
            self.watch.advance(step - before, numbers)
            before = step
            if time.monotonic() - last >= self.checkpoint_seconds:
                checkpoints.save(place.checkpoint, progress())
                last = time.monotonic()

        return pause

    def _about(self, kind: str, round: int, branch_seed: int, start: Start) -> dict[str, Any]:
        masks = start.plain.masks
        return {
            "kind": kind,
            "replicate": self.index,
            "branch_seed": branch_seed,
            "round": round,
            "density": mask_ops.density(masks),
            "layer_density": mask_ops.layer_density(masks),
            "first_step": start.state.step,
            "steps": start.until - start.state.step,
        }

    def _metadata(self, record: dict[str, Any]) -> dict[str, Any]:
        """What a ticket's file says of where it came from."""
        config, data = self.trainer.config, self.trainer.data
        names = ("round", "density", "replicate", "kind")
        return {
            **{name: record[name] for name in names},
            "metrics": {k: v for k, v in record["end"].items() if k != "step"},
            "versions": versions(),
            **self.trainer.settings.describe(),
            "model": {
                "name": config.model,
                "input_shape": list(data.input_shape),
                "classes": data.classes,
            },
        }


def _read(load: Callable[[Path], T], path: Path, place: Place) -> T:
    """What `load` reads; the error tells how to get the file again."""
    try:
        return load(path)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(
            f"{str(error).rstrip('.')}. Remove the folder {str(place.folder)!r} to train that "
            "round again."
        ) from error


def _results(trainer: Trainer, end: Progress) -> dict[str, Any]:
    return {
        "seconds": round(end.seconds, 3),
        "early_stop": at(end.curve, early_stop(end.curve)),
        "end": {**at(end.curve, -1), "train_accuracy": trainer.train_accuracy()},
        "curve": end.curve,
    }


def _seed(seed: int, kind: str, *more: int) -> int:
    """A seed for the data order of one training."""
    entropy = (seed, zlib.crc32(kind.encode()), *more)
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
