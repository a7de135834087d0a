"""Other callbacks, born anew in every round of a lottery."""

from collections.abc import Callable
from typing import Any

import keras

from keras_lottery import weights
from keras_lottery.callback import LotteryCallback
from keras_lottery.loop import Logs


class PerRound(keras.callbacks.Callback):
    """Gives another callback a fresh life in every round of a lottery.

    For callbacks with a memory (EarlyStopping, ReduceLROnPlateau) or a schedule by epoch
    (LearningRateScheduler): `make_callback` is called at the start of each round, the new
    callback sees epochs counted from 0 (after rewinding to step k, from k's epoch), and
    its `on_train_end` runs at the round's end. A round that it stops makes way for the
    next. Goes into the same list as the lottery, before or after it.

    Args:
        lottery: The `LotteryCallback`.
        make_callback: Function without arguments that returns a new Keras callback;
            `lottery.round` is the round it is for.

    Example:

    >>> lottery = LotteryCallback(epochs_per_round=10)
    >>> stop = PerRound(lottery, lambda: keras.callbacks.EarlyStopping(patience=3))
    """

    def __init__(
        self, lottery: LotteryCallback, make_callback: Callable[[], keras.callbacks.Callback]
    ):
        super().__init__()
        self.lottery = lottery
        self.make_callback = make_callback
        self._callback: keras.callbacks.Callback | None = None
        self._first_epoch = 0
        self._fit: Any = None
        self._stopped = False
        lottery.followers.append(self)

    def set_model(self, model: Any) -> None:
        """Called by `fit`: the first to meet a model of the wrong Keras."""
        weights.check_keras_3(model)
        super().set_model(model)

    def begin_round(self, epoch: int, first_epoch: int) -> None:
        """A new callback, for a round that begins with `epoch` of the fit.

        Its epoch 0 is `first_epoch` of the fit, which lies before `epoch` if the round is
        rewound to a later epoch than its first.
        """
        if not self._takes_part:
            return
        self._first_epoch = first_epoch
        self._callback = self.make_callback()
        self._callback.set_params({**self.params, "epochs": self.lottery.epochs_per_round})
        self._callback.set_model(self.model)
        self._callback.on_train_begin()
        self._callback.on_epoch_begin(epoch - first_epoch)

    def end_round(self, logs: Logs) -> None:
        """The round is over: its callback's training ends."""
        if self._callback is not None and self._takes_part:
            self._callback.on_train_end(logs)
        self._callback = None

    @property
    def _takes_part(self) -> bool:
        """Whether this is among the callbacks of the fit that runs."""
        return self._fit is not None and self._fit is self.lottery.model.history

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._fit, self._callback = self.model.history, None

    def on_train_end(self, logs: Logs | None = None) -> None:
        self.lottery.end_training()
        self._fit = None

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._stopped = False
        if not self.lottery.begin_epoch(epoch):
            self._forward("on_epoch_begin", epoch - self._first_epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.lottery.end_epoch(epoch, logs)
        self._forward("on_epoch_end", epoch - self._first_epoch, logs)
        if self._stopped:
            self.model.stop_training = False
            self.lottery.end_round()

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        self._forward("on_train_batch_begin", batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._forward("on_train_batch_end", batch, logs)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        self._forward("on_test_begin", logs)

    def on_test_end(self, logs: Logs | None = None) -> None:
        self._forward("on_test_end", logs)

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        self._forward("on_test_batch_begin", batch, logs)

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._forward("on_test_batch_end", batch, logs)

    def _forward(self, event: str, *args: Any) -> None:
        """Passes the event on, and notes whether the callback asks to stop training."""
        if self._callback is not None:
            before = self.model.stop_training
            getattr(self._callback, event)(*args)
            self._stopped |= bool(self.model.stop_training) and not before
