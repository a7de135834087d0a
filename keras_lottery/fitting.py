"""A search inside one `model.fit`: Keras events become calls of the search.

`FitRounds` is what the lottery callbacks of Keras 3 and of tf_keras have in common. The two
Keras send the same events, but each takes callbacks of its own class only.
"""

import warnings
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from keras_lottery import criteria, scopes, weights
from keras_lottery.display import RoundTable
from keras_lottery.loop import Logs, RoundClock, add_row, check_rounds
from keras_lottery.rounds import Round
from keras_lottery.schedules import ScheduleLike, StepSchedule
from keras_lottery.search import Search, SearchStoppedError
from keras_lottery.settings import Rewind, Settings, check_integer
from keras_lottery.tickets import Ticket

# Model to the history of the fit that searches it: a fit that failed leaves an old one.
_searched: "weakref.WeakKeyDictionary[Any, weakref.ref[Any]]" = weakref.WeakKeyDictionary()


def is_searched(model: Any) -> bool:
    """Whether a lottery is among the callbacks of the fit that runs."""
    history = _searched.get(model)
    return history is not None and history() is model.history


class Follower(Protocol):
    """What lives from round to round with the lottery; see `PerRound`."""

    def begin_round(self, epoch: int, first_epoch: int) -> None: ...

    def end_round(self, logs: Logs) -> None: ...


class FitRounds:
    """The rounds of a search in one fit. A base class beside a Keras's own `Callback`.

    That one gives `model` and `params`; the arguments are those of `LotteryCallback`.
    """

    model: Any
    params: dict[str, Any]

    def __init__(
        self,
        epochs_per_round: int,
        prune_fraction: ScheduleLike = 0.2,
        rounds: int | None = None,
        rewind: Rewind = "weights",
        rewind_steps: int = 0,
        scope: str | scopes.Scope = "global",
        criterion: str | criteria.Criterion = "magnitude",
        filters: weights.Filters | None = None,
        data: tuple[Any, Any] | None = None,
        seed: int = 0,
        verbose: int = 1,
    ):
        super().__init__()
        check_integer("epochs_per_round", epochs_per_round, least=1)
        self.epochs_per_round = int(epochs_per_round)
        self.settings = Settings(
            prune_fraction, rewind, rewind_steps, scope, criterion, filters, data, seed
        )
        self.n_rounds = rounds
        if rounds is not None:
            check_rounds(self.settings, rounds)
        self.verbose = verbose
        self.search: Search | None = None
        self.followers: list[Follower] = []
        self._forget()

    def _forget(self) -> None:
        self.search = None
        self._clock: RoundClock | None = None
        self._table = RoundTable(self.verbose)
        self._epoch: int | None = None
        self._starts = False
        self._closed: int | None = None
        self._round_over = False
        self._due: Callable[[], None] | None = None

    @property
    def rounds(self) -> list[Round]:
        """The finished rounds: density, density by layer, metrics, best epoch, seconds."""
        return [] if self.search is None else self.search.rounds

    @property
    def round(self) -> int:
        """Index of the round that trains now or trained last."""
        return 0 if self.search is None else self.search.round

    def ticket(self, round: int | None = None) -> Ticket:
        """The ticket that a finished round started from; by default the last one's.

        Raises:
            ValueError: If no round has finished, or there is no such round.
        """
        if self.search is None:
            raise ValueError("There is no ticket yet: no round has finished.")
        return self.search.ticket(round)

    # What differs between Keras 3 and tf_keras -----------------------------------------

    def check_model(self) -> None:
        """Raises, before training, for a model that cannot be searched."""
        raise NotImplementedError

    def begin_search(self, n_rounds: int) -> None:
        """Calls `start_search` when the model is ready for it."""
        raise NotImplementedError

    @property
    def averages(self) -> bool:
        """Whether the optimizer keeps averages of the weights (EMA)."""
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        return bool(optimizer.use_ema)

    # Keras events ---------------------------------------------------------------------

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._forget()
        self.check_model()
        _searched[self.model] = weakref.ref(self.model.history)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.begin_epoch(epoch)

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        if self._due is not None:
            due, self._due = self._due, None
            due()

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if self._clock is not None:
            try:
                self._clock.on_train_batch_end(batch, logs)
            except SearchStoppedError as error:
                self._abort(error)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.end_epoch(epoch, logs)

    def on_train_end(self, logs: Logs | None = None) -> None:
        self.end_training()

    # Rounds ---------------------------------------------------------------------------

    def begin_epoch(self, epoch: int) -> bool:
        """Starts the search or the next round if one is due; once an epoch.

        `PerRound` calls it too, so that the order of callbacks does not matter.

        Returns:
            Whether a round starts with this epoch.
        """
        if self._epoch != epoch:
            first = self._epoch is None
            self._epoch = epoch
            self._starts = first or self._round_over
            if first:
                self.begin_search(self._count_rounds(epoch))
            elif self._round_over and self.averages:
                # SwapEMAWeights swaps averages out when an epoch begins: wait for it.
                self._due = self._next_round
            elif self._round_over:
                self._next_round()
        return self._starts

    def end_epoch(self, epoch: int, logs: Logs | None) -> None:
        """Closes an epoch; once an epoch, see `begin_epoch`."""
        clock = self._clock
        if clock is None or self._closed == epoch:
            return
        self._closed = epoch
        clock.on_epoch_end(epoch, logs)
        self._stop_if_not_finite(clock)
        if clock.over:
            self.end_round()

    def end_round(self) -> None:
        """The round is over after this epoch: the next one starts, or training stops."""
        if self.search is None or self._round_over:
            return
        self._round_over = True
        if self.search.round + 1 >= self.search.n_rounds:
            self.model.stop_training = True

    def end_training(self) -> None:
        """Records the last round; once a fit, see `begin_epoch`."""
        clock, self._clock = self._clock, None
        if clock is None or self.search is None:
            return
        if clock.logs and self.search.stopped is None:
            try:
                self._finish_round(clock, finalize=False)
            except SearchStoppedError as error:
                self._abort(error)
        if self.search.stopped is not None:  # Keras finishes the batch it is about to train
            self.search.set_back()
        self.search.remask()
        self._warn_of_no_pruning(self.search)

    def _warn_of_no_pruning(self, search: Search) -> None:
        pruned = any(r.density < 1 for r in search.rounds)
        if pruned or search.stopped or len(search.rounds) < 2:
            return
        if isinstance(self.settings.prune_fraction, StepSchedule):
            warnings.warn(
                f"The schedule pruned nothing in {len(search.rounds)} rounds, the last of which "
                f"began at step {sum(r.steps for r in search.rounds[:-1])}. Choose one that prunes "
                "by then; in tfmot's that is `begin_step`, and `frequency` from there.",
                stacklevel=2,
            )

    def _count_rounds(self, first_epoch: int) -> int:
        epochs, each = self.params["epochs"] - first_epoch, self.epochs_per_round
        if self.n_rounds is None and epochs % each:
            raise ValueError(
                f"`fit` trains {epochs} epochs, which is not a multiple of "
                f"`epochs_per_round={each}`. Choose epochs={epochs // each * each + each}, or pass "
                "`rounds`."
            )
        if self.n_rounds is not None and epochs < self.n_rounds * each:
            raise ValueError(
                f"{self.n_rounds} rounds of {each} epochs need {self.n_rounds * each} epochs. "
                f"Received: {epochs}."
            )
        return check_rounds(self.settings, self.n_rounds or epochs // each)

    def start_search(self, search: Search) -> None:
        """The search that this fit runs: its first round starts now."""
        self.search = search
        self._clock = RoundClock(search, self.epochs_per_round)
        self._begin_round(self._clock)

    def _next_round(self) -> None:
        search, clock = self.search, self._clock
        if search is None or clock is None:
            return
        try:
            self._finish_round(clock)
            search.next_round()
        except SearchStoppedError as error:
            self._abort(error)
            return
        self._round_over = False
        clock.start()
        self._begin_round(clock)

    def _begin_round(self, clock: RoundClock) -> None:
        epoch = self._epoch or 0
        for follower in self.followers:
            follower.begin_round(epoch, epoch - clock.skipped)

    def _finish_round(self, clock: RoundClock, finalize: bool = True) -> None:
        if finalize:  # as Keras does at the end of every fit
            self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
        self._end_followers(clock)
        clock.finish()
        add_row(self._table, clock.search)

    def _end_followers(self, clock: RoundClock) -> None:
        for follower in self.followers:
            follower.end_round(clock.logs[-1] if clock.logs else {})

    def _stop_if_not_finite(self, clock: RoundClock) -> None:
        """A NaN or Inf in the logs is the sign to look at the weights themselves."""
        if not all(np.isfinite(value).all() for value in clock.logs[-1].values()):
            try:
                clock.search.trained_weights()
            except SearchStoppedError as error:
                self._abort(error)

    def _abort(self, error: SearchStoppedError) -> None:
        warnings.warn(str(error), RuntimeWarning, stacklevel=2)
        self.model.stop_training = True
        if self.search is not None and self._clock is not None:
            self._end_followers(self._clock)
            self.search.set_back()
