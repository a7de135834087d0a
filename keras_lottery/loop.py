"""One round's training as Keras's events show it, and the loop of rounds around it."""

import time
import warnings
from collections.abc import Callable
from typing import Any

import keras

from keras_lottery.display import RoundTable
from keras_lottery.search import Search, SearchStoppedError
from keras_lottery.settings import Settings, check_integer
from keras_lottery.smaller import SmallerModel, WholeModelError
from keras_lottery.tickets import Ticket

Logs = dict[str, Any]
Train = Callable[[keras.Model, list[keras.callbacks.Callback]], Any]


class _Cut:
    """A true `model.stop_training` that no other callback sets: end this epoch only."""


class RoundClock(keras.callbacks.Callback):
    """Watches the training of one round.

    It takes the snapshot at the rewind point, adds `round` and `density` to the logs,
    and lets a rewound round train from step k to T: the epochs that lie before k are
    left out, and the one that contains k is cut short, so that it ends at the step at
    which it ended in round 0. A step is an optimizer update; batches are not counted.

    Args:
        search: The `Search` that the round belongs to.
        n_epochs: How many epochs a full round has; `None`: as many as round 0 had.
    """

    def __init__(self, search: Search, n_epochs: int | None = None):
        super().__init__()
        self.search = search
        self.n_epochs = n_epochs
        self.set_model(search.model)
        self.set_params({})
        self.start()

    def start(self) -> None:
        """The round begins now."""
        self.began = time.monotonic()
        self.start_step = self.search.step
        self.logs: list[Logs] = []
        k = self.search.settings.rewind_steps
        rewound = k > 0 and self.search.round > 0
        self.skipped = sum(end <= k for end in self.search.epoch_ends) if rewound else 0
        inside = rewound and k not in self.search.epoch_ends
        self._cut_at = self.search.epoch_ends[self.skipped] if inside else None

    @property
    def over(self) -> bool:
        """Whether the round has trained all of its epochs."""
        n = self.n_epochs or (len(self.search.epoch_ends) if self.search.round else None)
        return n is not None and len(self.logs) + self.skipped >= n

    def finish(self) -> None:
        """Records the round. Raises `SearchStoppedError` as `Search.finish_round`."""
        last = self.logs[-1] if self.logs else {}
        steps = self.search.step - self.start_step
        seconds = time.monotonic() - self.began
        self.search.finish_round(last, best_epoch(self.logs), steps, seconds)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if self.search.snapshot is None:
            self._reach_rewind_point(self.search)
        elif self._cut_at is not None and self.search.step >= self._cut_at:
            self.model.stop_training = self.model.stop_training or _Cut()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.annotate(logs)
        if isinstance(self.model.stop_training, _Cut):
            self.model.stop_training = False
        self._cut_at = None
        if self.search.round == 0:
            self.search.epoch_ends.append(self.search.step)
        self.logs.append(dict(logs or {}))

    def annotate(self, logs: Logs | None) -> None:
        """Adds the round and its density to an epoch's logs."""
        if logs is not None:
            logs["round"], logs["density"] = self.search.round, self.search.density

    def _reach_rewind_point(self, search: Search) -> None:
        k = search.settings.rewind_steps
        if search.step == k:
            search.take_snapshot()
        elif search.step > k:
            raise ValueError(
                f"`rewind_steps={k}` was passed over: training went on to step {search.step} "
                "without a pause. With `steps_per_execution=N`, an epoch of S steps pauses at "
                "multiples of N and at S; choose a rewind step among those."
            )


def check_rewind_step(
    settings: Settings, model: keras.Model, batches: int | None, epochs: int
) -> None:
    """Raises, before training, if no pause of `fit` falls on the rewind point.

    Args:
        settings: The search's settings.
        model: The compiled model.
        batches: Batches of an epoch, or `None` if Keras does not know them.
        epochs: Epochs of a round.
    """
    k, n = settings.rewind_steps, int(getattr(model, "steps_per_execution", 1) or 1)
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    batches_a_step = getattr(inner, "gradient_accumulation_steps", None) or 1
    micro = k * batches_a_step
    if micro % n:
        raise ValueError(
            f"`rewind_steps={k}` is not a multiple of `steps_per_execution={n}`: between two "
            "pauses nothing can be copied. Choose a multiple, or compile with another "
            "`steps_per_execution`."
        )
    if k and batches and micro >= batches * epochs:
        raise ValueError(
            f"`rewind_steps={k}` lies at or beyond the end of a round, which has "
            f"{batches * epochs // batches_a_step} steps. Rewind to an earlier one or train longer."
        )
    if batches and micro % batches and batches % n:
        raise ValueError(
            f"`rewind_steps={k}` lies inside an epoch of {batches} batches, and "
            f"`steps_per_execution={n}` does not divide those: a rewound round could not end its "
            "first epoch in step. Choose a `steps_per_execution` that divides both."
        )


def best_epoch(logs: list[Logs]) -> int | None:
    """Index of the epoch with the lowest `val_loss`, else `loss`, else `None`."""
    for key in ("val_loss", "loss"):
        if logs and all(key in epoch for epoch in logs):
            return min(range(len(logs)), key=lambda e: float(logs[e][key]))
    return None


class _LoopClock(RoundClock):
    """The clock of one call of the user's `train`."""

    _running = False

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if self.search.smaller and self.model is not self.search.smaller.model:
            raise ValueError(
                "With `compact=True` the model to train is the one that `train(model, callbacks)` "
                f"is given. Received: another model, {self.model.name!r}."
            )
        batches, epochs = self.params.get("steps"), self.params.get("epochs") or 1
        check_rewind_step(self.search.settings, self.model, batches, epochs)
        self.search.meet_optimizer()
        if not self._running:
            self.start()
        self._running = True

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        if self.skipped and self.over:
            self.model.stop_training = True


def find_ticket(
    model: keras.Model,
    train: Train,
    rounds: int,
    verbose: int = 1,
    on_round: Callable[[Search], None] | None = None,
    compact: bool = False,
    **settings: Any,
) -> Search:
    """Finds tickets by iterative pruning around your own training function.

    Each round calls `train(model, callbacks)`; between rounds the smallest weights are
    pruned and the model is rewound. A round rewound to step k trains exactly T - k steps
    if `train` is a Keras `fit`, or a loop that calls the callbacks and heeds
    `model.stop_training`. Epoch numbers inside `train` start anew each round.

    Args:
        model: A built Keras model. It may be compiled before, or inside `train`.
        train: Function `(model, callbacks) -> History`, the same training every time;
            it passes `callbacks` on to `model.fit`.
        rounds: Integer, at least 1. Round 0 is dense, so `rounds - 1` times is pruned.
        verbose: 0 for silence, 1 for a table with one line a round.
        on_round: Function called with the search after each finished round, to save its
            ticket, say.
        compact: Whether to train, from round 1 on, a smaller copy of the model without the
            units that no alive weight reads, and to write what it learned back. Only where
            that is the same training up to rounding; else the model trains whole and a
            warning says why. `train` is then given the smaller model, compiled alike.
        **settings: `prune_fraction`, `rewind`, `rewind_steps`, `scope`, `criterion`,
            `filters`, `data`, `seed`, as in `LotteryCallback`.

    Returns:
        The `Search`: `.rounds`, `.ticket(round)`, `.stopped`. The model holds the last
        round's trained weights, under masks until `kl.strip`.

    Raises:
        ValueError: Before training, for settings out of range, a model without prunable
            weights or not built.

    Source: Frankle & Carbin, 1803.03635; with `rewind_steps`, Frankle et al., 1903.01611.

    Example:

    >>> import numpy as np
    >>> x, y = np.random.rand(64, 4), np.random.randint(0, 2, 64)
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    >>> model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> def train(model, callbacks):
    ...     return model.fit(x, y, epochs=2, verbose=0, callbacks=callbacks)
    >>> search = find_ticket(model, train, rounds=3, prune_fraction=0.5, verbose=0)
    >>> [r.density for r in search.rounds]
    [1.0, 0.5, 0.25]
    """
    options = Settings(**settings)
    check_rounds(options, rounds)
    search = Search(model, options, rounds)
    table = RoundTable(verbose)
    try:
        for index in range(rounds):
            if index:
                search.next_round()
            search.smaller = _smaller(search) if index and compact else None
            _train_round(search, train)
            add_row(table, search)
            if on_round is not None:
                on_round(search)
    except SearchStoppedError as error:
        warnings.warn(str(error), RuntimeWarning, stacklevel=2)
    except KeyboardInterrupt:
        if not search.rounds:
            raise
        search.stopped = f"interrupted in round {search.round}; earlier rounds were kept."
        warnings.warn(f"The search was {search.stopped}", RuntimeWarning, stacklevel=2)
    return search


def _train_round(search: Search, train: Train) -> None:
    """Trains the search's model, or its smaller copy, and records the round."""
    model = search.smaller.model if search.smaller else search.model
    clock = _LoopClock(search)
    model.stop_training = False
    try:
        train(model, [clock])
        clock.finish()
    finally:
        search.smaller = None


def _smaller(search: Search) -> SmallerModel | None:
    """A smaller copy of the model; `None`, with a warning, if it has to train whole."""
    try:
        smaller = SmallerModel(search.model, search.masks)
        return smaller if smaller.share < 1 else None
    except WholeModelError as error:
        warnings.warn(f"Round {search.round} trains the whole model: {error}", stacklevel=3)
        return None


def train_ticket(search: Search, ticket: Ticket, train: Train) -> list[Logs]:
    """Trains a ticket, or a control, exactly as a round of a finished search trains.

    The optimizer goes back to the rewind point, the ticket's weights and masks go into
    the search's model, and `train` runs as in `find_ticket`. The search's records stay.

    Returns:
        The logs of each epoch.
    """
    search.start_from(ticket)
    clock = _LoopClock(search)
    train(search.model, [clock])
    return clock.logs


def check_rounds(settings: Settings, rounds: int | None) -> int:
    """The number of rounds, agreed with the schedule. Raises `ValueError` if it is none."""
    if rounds is not None:
        check_integer("rounds", rounds, least=1)
    agreed: Any = settings.prune_fraction.check(rounds)  # type: ignore[union-attr]
    check_integer("rounds", agreed, least=1)
    return int(agreed)


def add_row(table: RoundTable, search: Search) -> None:
    """Prints the round that finished last."""
    last = search.rounds[-1]
    numbers = [name for name, value in last.metrics.items() if isinstance(value, float)]
    shown = [name for name in numbers if name != "learning_rate"][:6]
    table.add(
        {
            "round": str(last.index),
            "density": f"{last.density:.2%}",
            **{name: f"{last.metrics[name]:.4g}" for name in shown},
            "best epoch": "-" if last.best_epoch is None else str(last.best_epoch),
            "seconds": f"{last.seconds:.1f}",
        }
    )
