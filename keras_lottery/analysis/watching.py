"""What is shown while many networks are trained and compared."""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keras_lottery.analysis.comparing import Comparison
from keras_lottery.display import RoundTable, say


class Watch:
    """A bar over the trainings on a terminal, else a line for each; a line a comparison.

    Args:
        total: How many trainings there will be.
        verbose: 0 shows nothing.
        console: Where to show it. Default: the standard output.
    """

    def __init__(self, total: int, verbose: int = 1, console: Console | None = None):
        self._console = (console or Console()) if verbose else Console(quiet=True)
        self._table = RoundTable(verbose, self._console)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("trainings"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not (verbose and self._console.is_terminal),
        )
        self._bar = self._progress.add_task("", total=total)
        self._total, self._begun = total, 0

    def __enter__(self) -> "Watch":
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def begin(self, title: str) -> None:
        """A training begins; those before it are done."""
        self._progress.update(self._bar, description=title, completed=self._begun)
        self._begun += 1
        if not self._console.is_terminal:
            say(self._console, f"training {self._begun} of {self._total}: {title}")

    def say(self, title: str) -> None:
        """Something else than a training of those counted begins."""
        self._progress.update(self._bar, description=title, completed=self._begun)
        if not self._console.is_terminal:
            say(self._console, title)

    def skip(self, trainings: int) -> None:
        """So many trainings will not be needed."""
        self._total -= trainings
        self._progress.update(self._bar, total=self._total)

    def add(self, found: Comparison) -> None:
        """Prints a comparison."""
        row: dict[str, Any] = {
            "kind": f"{found.kind:11}",
            "against": f"{'order' if found.what == 'order' else 'dense':7}",
            "step": str(found.step),
            "replicate": str(found.replicate),
            "orders": "{} {}".format(*found.orders),
            "density": f"{found.density:.2%}",
            "distance": f"{found.distance:.4g}",
            "angle": f"{found.angle:.1f}",
        }
        if found.barrier is not None:
            row |= {f"barrier {part}": f"{h:.4f}" for part, h in found.barrier.heights.items()}
        self._table.add(row)
