"""The search: train, prune, rewind, repeat.

`prune_round` is the one place where a round's masks come from. `Search` keeps what a
search knows between rounds. `loop.find_ticket` drives it from a loop, `LotteryCallback`
from inside `model.fit`.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

import keras
import numpy as np

from keras_lottery import criteria, enforcement, versions, weights
from keras_lottery import masks as mask_ops
from keras_lottery import schedules as schedules_
from keras_lottery.holding import Enforcer, Held
from keras_lottery.masks import Array, Masks, Path
from keras_lottery.rewinding import Snapshot, optimizer_state, steps_done
from keras_lottery.rounds import Round, Start
from keras_lottery.scopes import NotFiniteError
from keras_lottery.settings import Settings
from keras_lottery.smaller import SmallerModel
from keras_lottery.tickets import Ticket


class SearchStoppedError(ValueError):
    """The search cannot go on (NaN in the weights, say); the last good round was kept."""


def prune_round(state: criteria.State, settings: Settings, round: int, step: int = 0) -> Masks:
    """The masks of `round`, from the weights that the round before trained.

    Scores every weight by the criterion, lets the scope choose the survivors that the
    schedule asks for. Pure: nothing is written to the model.

    Args:
        state: Trained weights, weights at the rewind point, masks so far.
        settings: Criterion, scope and schedule.
        round: Index of the round about to start, from 1.
        step: Optimizer steps since the search began, for schedules in steps.

    Raises:
        NotFiniteError: If the scores hold NaN or Inf, as those of NaN weights do.
    """
    scores = settings.criterion(state)  # type: ignore[operator]
    keep = settings.prune_fraction.keep(round, step)  # type: ignore[union-attr]
    return dict(settings.scope(scores, state.masks, keep))  # type: ignore[operator]


def check_finite(values: Mapping[Path, Array], what: str) -> None:
    """Raises `NotFiniteError` if any value is NaN or Inf."""
    bad = weights.not_finite(values)
    if bad:
        raise NotFiniteError(f"NaN or Inf in the {what} of {bad}")


class Search:
    """A search on one model: its rounds so far and the tickets they started from.

    Made by `find_ticket`; `LotteryCallback` holds one while and after it runs.

    Attributes:
        rounds: List of `Round`, finished ones only.
        stopped: Why the search ended before its last round, or `None`.
        epoch_ends: The step at which each epoch of round 0 ended.
        smaller: The smaller copy that trains in this round instead of the model, or `None`.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> search = Search(model, Settings(prune_fraction=0.5), n_rounds=2)
    >>> _ = search.finish_round({"loss": 0.1}, best_epoch=0, steps=10, seconds=1.0)
    >>> search.next_round()
    >>> search.round, search.density
    (1, 0.5)
    """

    def __init__(
        self,
        model: keras.Model,
        settings: Settings,
        n_rounds: int,
        enforcer: Enforcer = enforcement,
    ):
        self.model = model
        self.settings = settings
        self.n_rounds = n_rounds
        self.rounds: list[Round] = []
        self.stopped: str | None = None
        self.epoch_ends: list[int] = []
        self.snapshot: Snapshot | None = None
        self.smaller: SmallerModel | None = None
        self._variables = weights.prunable(model, settings.filters)
        shapes = {p: tuple(v.shape) for p, v in self._variables.items()}
        start = mask_ops.full(shapes) | (enforcer.enforced_masks(model) or {})
        in_order = [p for p in weights.all_weights(model) if p in start]
        self._handle: Held = enforcer.enforce(model, {p: start[p] for p in in_order})
        self.masks = {p: start[p] for p in in_order}
        self._tickets: list[Start] = []
        self._trained: dict[Path, Array] = {}
        self._first_step = steps_done(model)
        self._optimizer = getattr(model, "optimizer", None)
        self._start: Snapshot | None = Snapshot.take(model)
        if settings.rewind_steps == 0:
            self.snapshot = self._start
        self._check_scope()
        self._begin_round()

    @property
    def round(self) -> int:
        """Index of the round that trains now or trained last."""
        return len(self._tickets) - 1

    @property
    def density(self) -> float:
        """Density of the masks in force."""
        return mask_ops.density(self.masks)

    @property
    def step(self) -> int:
        """Optimizer steps since the search began; rewinding sets it back."""
        return steps_done(self.smaller.model if self.smaller else self.model) - self._first_step

    @property
    def rewinds(self) -> bool:
        """Whether rounds restart the schedule at the rewind point."""
        return self.settings.rewind != "none"

    def take_snapshot(self) -> None:
        """Copies the state at the rewind point.

        Raises:
            SearchStoppedError: If it holds NaN or Inf; the model is then set back to the start.
        """
        self.trained_weights()
        self.snapshot = Snapshot.take(self.model, self.settings.rewind_steps)

    def remask(self) -> None:
        """Zeroes pruned weights again, should something else have written to them."""
        self._handle.remask()

    def start_from(self, ticket: Ticket) -> None:
        """Sets the model to `ticket` at the rewind point; the search's records stay."""
        if self.snapshot is not None:
            self.snapshot.restore_optimizer(self.model)
        self._handle = ticket.apply(self.model)
        self.masks = self._handle.masks

    def meet_optimizer(self) -> None:
        """Takes over an optimizer that was compiled since the search last looked.

        In the first round its state belongs to the rewind point; in a later one it is
        brought back to the rewind point like the old one would have been.
        """
        if self.smaller is not None:
            self.smaller.meet_optimizer()
            return
        optimizer = getattr(self.model, "optimizer", None)
        if optimizer is self._optimizer:
            return
        self._optimizer = optimizer
        if self.round == 0:
            self._first_step = steps_done(self.model)
            if self._start is not None:
                self._start.optimizer = optimizer_state(self.model)
        elif self.rewinds and self.snapshot is not None:
            self.snapshot.restore_optimizer(self.model, self.masks)

    def next_round(self) -> None:
        """Prunes by the trained weights, rewinds, and begins the next round.

        Raises:
            SearchStoppedError: If criterion, schedule or scope fail, as they do on NaN; the
                model is then set back to the last good round.
        """
        state = criteria.State(
            weights={p: self._trained[p] for p in self._variables},
            initial=self._initial(),
            masks={p: self.masks[p] for p in self._variables},
            model=self.model,
            data=self.settings.data,
            seed=(self.settings.seed, self.round + 1),
        )
        try:
            masks = prune_round(state, self.settings, self.round + 1, self._steps_so_far())
        except ValueError as error:
            self._give_up(error)
        self.masks = {**self.masks, **masks}
        self._rewind()
        self._begin_round()

    def trained_weights(self) -> dict[Path, Array]:
        """The weights as they are now.

        Raises:
            SearchStoppedError: If they hold NaN or Inf. The model is then set back to the last
                good round, or to where round 0 started.
        """
        values = weights.read(weights.all_weights(self.model))
        try:
            check_finite(values, "weights")
        except NotFiniteError as error:
            self._give_up(error)
        return values

    def finish_round(
        self, metrics: Mapping[str, float], best_epoch: int | None, steps: int, seconds: float
    ) -> Round:
        """Records the round that just trained.

        Raises:
            SearchStoppedError: As `trained_weights`.
        """
        if self.smaller is not None:
            self.smaller.write_back()
        self._trained = self.trained_weights()
        done = Round(
            index=self.round,
            density=self.density,
            layer_density=mask_ops.layer_density(self.masks),
            metrics={k: _plain(v) for k, v in metrics.items() if k not in ("round", "density")},
            best_epoch=best_epoch,
            steps=steps,
            seconds=seconds,
            trained=self.smaller.share if self.smaller else 1.0,
        )
        self.rounds.append(done)
        self._start = None
        return done

    def ticket(self, round: int | None = None) -> Ticket:
        """The ticket that a round started from.

        Args:
            round: Index of the round; negative counts from the end. Default: the last.

        Raises:
            ValueError: If there is no such round, or the rewind point was not reached.
        """
        if not self.rounds:
            raise ValueError("There is no ticket yet: no round has finished.")
        try:
            done = self.rounds[-1 if round is None else round]
        except IndexError:
            raise ValueError(
                f"Expected a round from 0 to {len(self.rounds) - 1}. Received: {round}"
            ) from None
        start = self._tickets[done.index]
        source = start.values or (self.snapshot.variables if self.snapshot else {})
        paths = [p for p in weights.all_weights(self.model) if p in source]
        return Ticket(start.masks(), {p: source[p] for p in paths}, self._metadata(done))

    def _check_scope(self) -> None:
        """A scope that fits no path fails here, before training, on scores of zero."""
        masks = {p: self.masks[p] for p in self._variables}
        zeros = {p: np.broadcast_to(np.float32(0), m.shape) for p, m in masks.items()}
        self.settings.scope(zeros, masks, schedules_.keep_density(1.0))  # type: ignore[operator]

    def _metadata(self, done: Round) -> dict[str, Any]:
        return {
            "round": done.index,
            "density": done.density,
            "densities": [r.density for r in self.rounds[: done.index + 1]],
            "metrics": done.metrics,
            "versions": versions.versions(),
            **self.settings.describe(),
        }

    def _initial(self) -> dict[Path, Array]:
        if self.snapshot is None:
            raise ValueError(
                f"The rewind point, step {self.settings.rewind_steps}, was not reached: the first "
                f"round trained {self.step} steps. Train longer or rewind earlier; a training loop "
                "of your own must call its callbacks."
            )
        return {p: self.snapshot.variables[p] for p in self._variables}

    def _steps_so_far(self) -> int:
        return sum(r.steps for r in self.rounds)

    def _rewind(self) -> None:
        """The new masks, and back to the rewind point as far as the settings say."""
        weights_back = self.settings.rewind == "weights"
        self._handle.update(self.masks, remask=not weights_back)
        if self.snapshot is not None and weights_back:
            self.snapshot.restore_weights(self.model, self.masks)
        if self.snapshot is not None and self.rewinds:
            self.snapshot.restore_optimizer(self.model, self.masks)

    def _begin_round(self) -> None:
        rewound = self.settings.rewind == "weights"
        at_snapshot = rewound or (not self._tickets and self.settings.rewind_steps == 0)
        values = None if at_snapshot else weights.read(weights.all_weights(self.model))
        self._tickets.append(Start.of(self.masks, values))

    def set_back(self) -> None:
        """Writes the weights of the last good round into the model again."""
        weights.write(weights.all_weights(self.model), self._trained)
        self._handle.update(self.masks)

    def _give_up(self, error: ValueError) -> NoReturn:
        """Leaves the model as the last good round left it, and says so."""
        source = self.snapshot
        if self.rounds:
            self.masks = self._tickets[self.rounds[-1].index].masks()
        elif self._start is not None:
            self._trained, source = self._start.variables, self._start
        if source is not None:
            source.restore_optimizer(self.model)
        self.set_back()
        kept = f"round {self.rounds[-1].index}" if self.rounds else "the start"
        self.stopped = f"{error} in round {self.round}; the search stopped and kept {kept}."
        raise SearchStoppedError(self.stopped) from error


def _plain(value: Any) -> Any:
    """A metric as a float, or a list of them."""
    return np.asarray(value, float).tolist()
