"""What a run shows while it runs: bars with the time left, and a line for each training."""

import threading
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keras_lottery.display import RoundTable, say
from keras_lottery.experiments.store import TICKET

_QUIET_SECONDS = 20
_KIND = 14  # the columns of a plain search then fit 80 characters


class Live:
    """Prints to a console; on a terminal with progress bars, else with a line now and then.

    Args:
        quiet: Whether to print nothing.
        repeated: Whether there is more than one replicate, so that rows must tell.
    """

    def __init__(self, quiet: bool = False, repeated: bool = False):
        self.console = Console(quiet=quiet)
        self.repeated = repeated
        self.lock = threading.Lock()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._table = RoundTable(console=self.console)

    def __enter__(self) -> "Live":
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """Prints a sentence."""
        with self.lock:
            say(self.console, text)

    def watch(self) -> "TaskWatch":
        """A watch for the tasks of one process."""
        return TaskWatch(self, self._progress)

    def add(self, record: dict[str, Any]) -> None:
        """Prints a finished training as a line of the table."""
        kind, seed = record["kind"], record["branch_seed"]
        name = (kind + (f" {seed}" if seed else "")).replace("_", " ")
        row = {"kind".ljust(_KIND): name.ljust(_KIND)}
        if self.repeated:
            row["replicate"] = str(record["replicate"])
        row |= {
            "round": str(record["round"]),
            "density": f"{record['density']:.2%}",
            "test": _percent(record["early_stop"]["test_accuracy"]),
            "at step": str(record["early_stop"]["step"]),
            "at the end": _percent(record["end"]["test_accuracy"]),
            "seconds": f"{record['seconds']:.1f}",
        }
        with self.lock:
            self._table.add(row)


class TaskWatch:
    """Shows the tasks of one process, one after another, by a bar or a line now and then."""

    def __init__(self, live: Live, progress: Progress):
        self._live, self._progress = live, progress
        self._bar: Any = None
        self._title, self._steps, self._done = "", 0, 0
        self._spoke = time.monotonic()

    def begin(self, title: str, steps: int) -> None:
        """A task of so many optimizer steps begins."""
        self.end()
        self._title, self._steps, self._done = title, steps, 0
        self._bar = self._progress.add_task(title, total=steps)

    def end(self) -> None:
        """The task is over."""
        if self._bar is not None:
            self._progress.remove_task(self._bar)
        self._bar = None

    def advance(self, steps: int, numbers: dict[str, Any]) -> None:
        """So many more steps are done."""
        self._done += steps
        if self._bar is not None:
            self._progress.advance(self._bar, steps)
        if self._live.console.is_terminal or time.monotonic() - self._spoke < _QUIET_SECONDS:
            return
        self._spoke = time.monotonic()
        accuracy = _percent(numbers.get("val_accuracy"))
        self._live.say(
            f"  {self._title}: step {self._done:,} of {self._steps:,}, validation accuracy "
            f"{accuracy}"
        )

    def row(self, record: dict[str, Any]) -> None:
        """A training has finished."""
        if record["kind"] == TICKET or not record["kind"].endswith("/chain"):
            self._live.add(record)
        self._spoke = time.monotonic()

    def say(self, text: str) -> None:
        """Prints a sentence."""
        self._live.say(text)


def _percent(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.2%}"
