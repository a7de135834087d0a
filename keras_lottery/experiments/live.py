"""What a run shows while it runs: a progress bar, and one line for each training."""

import time
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keras_lottery.display import RoundTable, say

_QUIET_SECONDS = 20


class Live:
    """Prints to a console; on a terminal with a progress bar, else with a line now and then.

    Args:
        quiet: Whether to print nothing.
    """

    def __init__(self, quiet: bool = False):
        self.console = Console(quiet=quiet)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("epochs"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._table = RoundTable(console=self.console)
        self._task: Any = None
        self._title, self._epochs, self._done = "", 0, 0
        self._lap = self._spoke = time.monotonic()

    def __enter__(self) -> "Live":
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """Prints a sentence."""
        say(self.console, text)

    def start(self, title: str, epochs: int) -> None:
        """A new part of the run begins: `epochs` trainings of an epoch."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._title, self._epochs, self._done = title, epochs, 0
        self._task = self._progress.add_task(title, total=epochs)
        self._table = RoundTable(console=self.console)
        self.say(f"\n{title}")
        self.lap()

    def lap(self) -> float:
        """Seconds since the last call."""
        before, self._lap = self._lap, time.monotonic()
        return self._lap - before

    def row(self, record: dict[str, Any]) -> None:
        """One finished training."""
        self._table.add(
            {
                "round": str(record["round"]),
                "density": f"{record['density']:.2%}",
                "test accuracy": f"{record['early_stop_test_accuracy']:.2%}",
                "early-stop epoch": str(record["early_stop_epoch"]),
                "at the end": f"{record['test_accuracy']:.2%}",
                "seconds": f"{record['seconds']:.1f}",
            }
        )
        self._spoke = time.monotonic()

    def callback(self) -> keras.callbacks.Callback:
        """A Keras callback that moves the bar by one each epoch."""
        return keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: self._advance(logs))

    def _advance(self, logs: Any) -> None:
        self._done += 1
        self._progress.advance(self._task)
        if not self.console.is_terminal and time.monotonic() - self._spoke > _QUIET_SECONDS:
            self._spoke = time.monotonic()
            accuracy = (logs or {}).get("val_accuracy", float("nan"))
            self.say(
                f"  {self._title}: epoch {self._done} of {self._epochs}, "
                f"validation accuracy {accuracy:.4f}"
            )
