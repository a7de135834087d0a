"""What a search prints: one line a round."""

from collections.abc import Mapping

from rich.console import Console


class RoundTable:
    """A table that grows by one line a round; plain text when piped to a file.

    Its columns are those of the first row.

    Args:
        verbose: 0 prints nothing.
        console: Where to print. Default: the standard output.
    """

    def __init__(self, verbose: int = 1, console: Console | None = None):
        self._console = (console or Console()) if verbose else Console(quiet=True)
        self._widths: dict[str, int] = {}

    def add(self, row: Mapping[str, str]) -> None:
        """Prints one row, a dict of heading to text; the first call prints the headings."""
        if not self._widths:
            self._widths = {name: max(len(name), len(text), 7) for name, text in row.items()}
            self._print({name: name for name in row}, "bold")
        self._print(row)

    def _print(self, row: Mapping[str, str], style: str | None = None) -> None:
        line = "  ".join(row.get(name, "-").rjust(width) for name, width in self._widths.items())
        say(self._console, line, style)


def say(console: Console, text: str, style: str | None = None) -> None:
    """Prints `text` as it is: paths and names are not read as markup."""
    console.print(text, style=style, highlight=False, soft_wrap=True, markup=False, emoji=False)
