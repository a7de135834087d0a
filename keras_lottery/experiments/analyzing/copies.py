"""Trained copies of a network: from the state at step k to the end, with data order u.

RUN/analysis/copies/replicate_0/step_500/state/                 the dense network at step k
RUN/analysis/copies/replicate_0/step_500/dense/order_1/         one copy, as any training
RUN/analysis/copies/replicate_0/step_500/ticket_round_10/order_1/

The batches of step s follow from the replicate and u alone, so all kinds see the same.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from keras_lottery import weights
from keras_lottery.analysis.comparing import Case
from keras_lottery.experiments import checkpoints
from keras_lottery.experiments.analyzing.findings import FOLDER
from keras_lottery.experiments.analyzing.runs import Run
from keras_lottery.experiments.searching import Replicate, Start
from keras_lottery.experiments.store import TICKET, Place, Store
from keras_lottery.experiments.watching import Watch
from keras_lottery.masks import Array, Masks
from keras_lottery.rewinding import Snapshot
from keras_lottery.search import SearchStoppedError
from keras_lottery.tickets import Ticket

DENSE, RANDOM = "dense", "random_mask"
Kinds = dict[str, tuple[str, int]]
_ORDERS = 0x6F72646572  # keeps the copies' orders apart from those of the run's trainings


def kinds(rounds: Sequence[int]) -> Kinds:
    """What is trained: a name to a kind and the round whose masks it has.

    Example:

    >>> kinds([3])
    {'dense': ('dense', 0), 'ticket': ('ticket', 3), 'random_mask': ('random_mask', 3)}
    >>> list(kinds([3, 4]))[1:3]
    ['ticket, round 3', 'ticket, round 4']
    """
    sparse = {
        kind if len(rounds) == 1 else f"{kind}, round {r}": (kind, r)
        for kind in (TICKET, RANDOM)
        for r in rounds
    }
    return {DENSE: (DENSE, 0), **sparse}


@dataclass(frozen=True)
class Copies:
    """The trained copies of a run.

    Args:
        run: The run.
        kinds: What `Case.kind` may be, see `kinds`.
        seconds: The least time between two checkpoints of a training.
    """

    run: Run
    kinds: Kinds
    seconds: float = 30.0

    @cached_property
    def _known(self) -> dict[tuple[str, int], Masks]:
        return {}

    def cases(self, steps: Sequence[int], replicates: Sequence[int], orders: int) -> list[Case]:
        """Every copy that is compared."""
        return [
            Case(kind, step, replicate, order)
            for replicate in replicates
            for step in steps
            for kind in self.kinds
            for order in range(orders)
        ]

    def masks(self, case: Case) -> Masks:
        """The masks of a copy; a dense one's prune nothing."""
        key = (case.kind, case.replicate)
        if key not in self._known:
            self._known[key] = self.run.masks(case.replicate, *self.kinds[case.kind])
        return self._known[key]

    def place(self, case: Case) -> Place:
        """Where a copy lies."""
        kind, round = self.kinds[case.kind]
        name = kind if kind == DENSE else f"{kind}_round_{round:02d}"
        return Place(self._at(case) / name / f"order_{case.order}")

    def trained(self, case: Case) -> dict[str, Array]:
        """The weights and statistics at the end of a copy.

        Raises:
            ValueError: If the file is damaged, or of masks that the run no longer has.
        """
        place = self.place(case)
        try:
            found = Ticket.load(place.trained)
        except (ValueError, FileNotFoundError) as error:
            raise ValueError(f"{error}. {_again(place)}") from error
        if any(not np.array_equal(found.masks[p], m) for p, m in self.masks(case).items()):
            raise ValueError(
                f"The copy {str(place.folder)!r} has other masks than the run has now: a round "
                f"was trained again. {_again(place)}"
            )
        return found.weights

    def train(self, wanted: Sequence[Case], watch: Watch) -> int:
        """Trains the copies that are missing, each from its checkpoint if there is one.

        Returns:
            How many were missing.

        Raises:
            ValueError: If another process works on the run, a copy's weights become NaN, or a
                file cannot be written; finished copies are kept.
        """
        missing = [case for case in wanted if not self.place(case).done]
        if not missing:
            return 0
        lock = Store(self.run.folder).lock()
        try:
            _remove_half_written(self.run.folder / FOLDER)
            watch.begin("copies", sum(self._lengths(missing)))
            for case in missing:
                self._train(case, watch)
        except OSError as error:
            raise ValueError(
                f"Cannot write to {str(self.run.folder)!r}: {error}. Finished copies are kept; the "
                "same command goes on from there."
            ) from error
        finally:
            lock.release()
        return len(missing)

    def _train(self, case: Case, watch: Watch) -> None:
        replicate, place = self._replicate(case, watch), self.place(case)
        kind, round = self.kinds[case.kind]
        state = self._state(case, watch)
        order = np.random.SeedSequence((replicate.seed, _ORDERS, case.order))
        start = Start(
            _ticket(replicate, state, self.masks(case)),
            state,
            self.run.trainer.lengths.total,
            order=int(order.generate_state(1)[0]),
        )
        try:
            replicate.train(place, start, f"{kind}@{case.step}", round, case.order)
        except SearchStoppedError as error:
            raise ValueError(f"The copy {str(place.folder)!r} cannot be used: {error}") from error

    def _state(self, case: Case, watch: Watch) -> Snapshot:
        """The dense network at a copy's step k."""
        replicate = self._replicate(case, _Untold(watch))
        rewind = self.run.trainer.lengths.rewind
        if case.step == 0:
            return self.run.trainer.initial(replicate.seed)
        if case.step == rewind:
            return replicate.rewind_point()
        place = self._place_of_state(case)
        if not place.done:
            state = self._before(replicate, case.step)
            dense = _ticket(replicate, state, self.run.trainer.full_masks)
            start = Start(dense, state, case.step)
            replicate.train(place, start, TICKET, 0, keep_state=True)
        try:
            return checkpoints.load(place.checkpoint).snapshot
        except (ValueError, FileNotFoundError) as error:
            raise ValueError(f"{error}. {_again(place)}") from error

    def _before(self, replicate: Replicate, step: int) -> Snapshot:
        """The last state before a step that is known without training."""
        if 0 < self.run.trainer.lengths.rewind < step:
            return replicate.rewind_point()
        return self.run.trainer.initial(replicate.seed)

    def _lengths(self, missing: Sequence[Case]) -> Iterator[int]:
        """Optimizer steps of each training that is missing, states included."""
        lengths = self.run.trainer.lengths
        states = {(c.replicate, c.step): c for c in missing}
        for case in states.values():
            known = case.step in (0, lengths.rewind) or self._place_of_state(case).done
            begins = lengths.rewind if lengths.rewind < case.step else 0
            yield 0 if known else case.step - begins
        yield from (lengths.total - case.step for case in missing)

    def _replicate(self, case: Case, watch: Watch) -> Replicate:
        return self.run.replicate(case.replicate, watch, self.seconds)

    def _at(self, case: Case) -> Path:
        copies = self.run.folder / FOLDER / "copies"
        return copies / f"replicate_{case.replicate}" / f"step_{case.step}"

    def _place_of_state(self, case: Case) -> Place:
        return Place(self._at(case) / "state")


@dataclass(frozen=True)
class _Untold:
    """A watch that does not tell of finished trainings: a state on the way is no result."""

    watch: Watch

    def begin(self, title: str, steps: int) -> None:
        self.watch.begin(title, steps)

    def advance(self, steps: int, numbers: dict[str, Any]) -> None:
        self.watch.advance(steps, numbers)

    def row(self, record: dict[str, Any]) -> None:
        pass

    def say(self, text: str) -> None:
        self.watch.say(text)


def _ticket(replicate: Replicate, state: Snapshot, masks: Masks) -> Ticket:
    """The network at a state, under masks."""
    named = weights.all_weights(replicate.trainer.model)
    return Ticket(dict(masks), {p: state.variables[p] for p in named})


def _again(place: Place) -> str:
    return f"Remove the folder {str(place.folder)!r} to train it again."


def _remove_half_written(folder: Path) -> None:
    """Removes what killed processes were writing; the lock is held, so nobody writes now."""
    for path in folder.glob("**/.*"):
        if re.fullmatch(r"\..+\.\d+\.[0-9a-f]{8}", path.name):
            path.unlink()
