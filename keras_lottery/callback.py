"""Lottery tickets inside one `model.fit`: Keras events become calls of the search."""

import warnings
from collections.abc import Callable
from typing import Any, Protocol

import keras
import numpy as np

from keras_lottery import criteria, scopes, weights
from keras_lottery.display import RoundTable
from keras_lottery.loop import Logs, RoundClock, add_row, check_rewind_step, check_rounds
from keras_lottery.rounds import Round
from keras_lottery.schedules import ScheduleLike
from keras_lottery.search import Search, SearchStoppedError
from keras_lottery.settings import Rewind, Settings, check_integer
from keras_lottery.tickets import Ticket


class Follower(Protocol):
    """What lives from round to round with the lottery; see `PerRound`."""

    def begin_round(self, epoch: int, first_epoch: int) -> None: ...

    def end_round(self, logs: Logs) -> None: ...


class LotteryCallback(keras.callbacks.Callback):
    """Finds lottery tickets in `model.fit`: train, prune, rewind, repeat.

    A round lasts `epochs_per_round` epochs. At the start of each next round the trained
    weights are scored, the lowest are pruned, and the rest go back to the rewind point;
    so every callback sees the trained sparse weights at a round's end, whatever the order
    of callbacks. From the first epoch on the logs hold `round` and `density`; put this
    callback before CSVLogger and its like in the list, so that they see both.

    A round rewound to step k trains the steps k to T. After the fit the model keeps its
    masks, and a further fit stays sparse, until `kl.strip(model)`. A model that already
    carries masks (a ticket, an earlier search) starts from them.

    Args:
        epochs_per_round: Integer, at least 1.
        prune_fraction: Float in (0, 1): the fraction of the surviving weights removed
            after each round. Or a schedule: densities by round, the first 1.0; a callable
            `round -> density`; a tfmot `PruningSchedule`. Default: 0.2.
        rounds: Integer, or `None`: the epochs of `fit` divided by `epochs_per_round`,
            which must leave no remainder. With `rounds`, `fit` stops after the last.
        rewind: `"weights"` sets everything back to the rewind point; `"learning_rate"`
            keeps the weights and sets optimizer, step counter and learning rate back;
            `"none"` goes on training (fine-tuning). Default: `"weights"`.
        rewind_steps: Integer, the rewind point k in optimizer steps. Default: 0, the
            initialization.
        scope: `"global"`, `"layerwise"`, `"erk"`, `"nm"`, `"block"`, `"channels"` or a
            `kl.scopes` object.
        criterion: A name in `kl.criteria` or a callable `State -> scores`.
        filters: Which weights to prune: a regex on paths, a list of them, or a callable
            `(path, variable) -> bool`. Default: trainable weights of rank 2 or more,
            without biases, embeddings and normalizations.
        data: A batch `(x, y)` for criteria that need one.
        seed: Integer for criteria that draw.
        verbose: 0 for silence, 1 for a table with one line a round.

    Raises:
        ValueError: At construction or before the first step, for anything that cannot work.

    Source: Frankle & Carbin, 1803.03635; rewinding, Frankle et al., 1903.01611; learning
    rate rewinding, Renda et al., 2003.02389.

    Example:

    >>> import numpy as np
    >>> x, y = np.random.rand(64, 4), np.random.randint(0, 2, 64)
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    >>> model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> lottery = LotteryCallback(epochs_per_round=2, prune_fraction=0.5, verbose=0)
    >>> history = model.fit(x, y, epochs=6, verbose=0, callbacks=[lottery])
    >>> [r.density for r in lottery.rounds]
    [1.0, 0.5, 0.25]
    >>> lottery.ticket().density
    0.25
    """

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

    # Keras events ---------------------------------------------------------------------

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._forget()
        batches = self.params.get("steps")
        check_rewind_step(self.settings, self.model, batches, self.epochs_per_round)
        if self.model.built:
            weights.prunable(self.model, self.settings.filters)

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
                self._begin_search(self._count_rounds(epoch))
            elif self._round_over and self._averages:
                # SwapEMAWeights swaps averages out when an epoch begins: wait for it.
                self._due = self._next_round
            elif self._round_over:
                self._next_round()
        return self._starts

    @property
    def _averages(self) -> bool:
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        return bool(optimizer.use_ema)

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

    def _begin_search(self, n_rounds: int) -> None:
        if not self.model.built:
            self._begin_when_built(n_rounds)
            return
        self.search = Search(self.model, self.settings, n_rounds)
        self.model.make_train_function()
        self._clock = RoundClock(self.search, self.epochs_per_round)
        self._begin_round(self._clock)

    def _begin_when_built(self, n_rounds: int) -> None:
        """Keras builds such a model in its first step: build it just before, from the data."""
        model = self.model

        def build_then_step(iterator: Any) -> Any:
            inputs, *_ = keras.utils.unpack_x_y_sample_weight(iterator.element_spec)
            model(keras.tree.map_structure(lambda t: keras.KerasTensor(t.shape, t.dtype), inputs))
            self._begin_search(n_rounds)
            return model.train_function(iterator)

        model.train_function = build_then_step

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
