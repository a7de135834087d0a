"""What a search prints: one line a round."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console


class RoundTable:
    """A table that grows by one line a round; plain text when piped to a file.

    Its columns are fixed by the first round: the numbers in its metrics.

    Args:
        verbose: 0 prints nothing.
    """

    def __init__(self, verbose: int = 1):
        self._console = Console(highlight=False, soft_wrap=True, quiet=not verbose)
        self._metrics: list[str] = []
        self._names: list[str] = []

    def add(
        self,
        index: int,
        density: float,
        metrics: Mapping[str, Any],
        best_epoch: int | None,
        seconds: float,
    ) -> None:
        """Prints one round; the first call prints the headings."""
        if not self._names:
            self._metrics = [k for k in metrics if k != "learning_rate"][:6]
            self._names = ["round", "density", *self._metrics, "best epoch", "seconds"]
            self._print(self._names, "bold")
        values = [f"{metrics[m]:.4g}" if m in metrics else "-" for m in self._metrics]
        best = "-" if best_epoch is None else str(best_epoch)
        self._print([str(index), f"{density:.2%}", *values, best, f"{seconds:.1f}"])

    def _print(self, cells: list[str], style: str | None = None) -> None:
        widths = [max(len(name), 8) for name in self._names]
        line = "  ".join(c.rjust(w) for c, w in zip(cells, widths, strict=True))
        self._console.print(line, style=style)
