"""How measurements are shown: as tables and as a bar chart."""

import importlib.util
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_UNLIMITED = 10_000
_SIZES = ("density", "parameters", "MFLOPs", "bytes", "gzipped")


def table(rows: Sequence[Any]) -> Table:
    """All of the measurements.

    Args:
        rows: `Measurement`s.
    """
    return _table(rows, _columns(rows))


def show(rows: Sequence[Any], console: Console) -> None:
    """Prints one table, or one of sizes and one of speeds where a terminal is narrow.

    Args:
        rows: `Measurement`s.
        console: Where to print.
    """
    columns = _columns(rows)
    parts = [columns]
    if console.is_terminal and _width(_table(rows, columns)) > console.width:
        sizes = {head: cells for head, cells in columns.items() if head in _SIZES}
        parts = [sizes, {head: columns[head] for head in columns if head not in _SIZES}]
    for part in parts:
        made = _table(rows, part)
        # A console would cut the cells to its width.
        wide = Console(
            file=console.file,
            force_terminal=console.is_terminal,
            quiet=console.quiet,
            width=max(console.width, _width(made)),
        )
        wide.print(made)


def _columns(rows: Sequence[Any]) -> dict[str, list[str]]:
    """Heading to the cells below it."""

    def texts(values: Iterable[Any], form: str) -> list[str]:
        return ["-" if value is None else format(value, form) for value in values]

    batches = list(rows[0].latency) if rows else []
    return {
        "density": texts((r.density for r in rows), ".1%"),
        "parameters": texts((r.parameters for r in rows), ","),
        "MFLOPs": texts((None if r.flops is None else r.flops / 1e6 for r in rows), ",.2f"),
        "bytes": texts((r.bytes for r in rows), ","),
        "gzipped": texts((r.gzipped for r in rows), ","),
        "load ms": texts((r.load_seconds and 1000 * r.load_seconds for r in rows), ",.1f"),
        **{f"ms at batch {n}": [_spread(r.latency[n]) for r in rows] for n in batches},
        "differs": texts((r.difference for r in rows), ".1e"),
    }


def _spread(spread: Any) -> str:
    digits = 3 if spread.median < 1 else 2 if spread.median < 10 else 1
    median, low, high = (f"{v:,.{digits}f}" for v in (spread.median, spread.low, spread.high))
    return f"{median} ({low}-{high})"


def _table(rows: Sequence[Any], columns: Mapping[str, Sequence[str]]) -> Table:
    made = Table(box=None, header_style="bold", pad_edge=False)
    made.add_column("", no_wrap=True)
    for head in columns:
        made.add_column(head, no_wrap=True, justify="right")
    for i, row in enumerate(rows):
        cells = [cells[i] for cells in columns.values()]
        made.add_row(Text(row.name), *cells, style="dim" if row.is_dense else None)
    return made


def _width(made: Table) -> int:
    return Console(width=_UNLIMITED).measure(made).maximum


def check_installed() -> None:
    """Raises `ImportError`, naming the extra, unless the picture can be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError("The picture needs matplotlib: pip install 'keras-lottery[plots]'")


def bars(rows: Sequence[Any]) -> bytes:
    """Bytes on disk and latencies as horizontal bars, a PNG.

    Args:
        rows: `Measurement`s; sizes that are not known have no bar.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    check_installed()
    from matplotlib.figure import Figure

    batches = list(rows[0].latency) if rows else []
    figure = Figure(figsize=(4 * (1 + len(batches)), 0.35 * len(rows) + 1.4), layout="constrained")
    axes = figure.subplots(1, 1 + len(batches), sharey=True, squeeze=False)[0]
    places = range(len(rows))
    colours = ["tab:grey" if r.is_dense else "tab:blue" for r in rows]
    sizes = [(r.bytes or 0) / 1000 for r in rows]
    axes[0].barh(places, sizes, color=colours)
    axes[0].set_xlabel("kB on disk")
    axes[0].set_yticks(places, [r.name for r in rows], parse_math=False)
    for axis, batch in zip(axes[1:], batches, strict=True):
        spreads = [r.latency[batch] for r in rows]
        errors = [
            [max(0.0, s.median - s.low) for s in spreads],
            [max(0.0, s.high - s.median) for s in spreads],
        ]
        axis.barh(places, [s.median for s in spreads], xerr=errors, color=colours)
        axis.set_xlabel(f"ms at batch {batch}, median and quartiles")
    axes[0].invert_yaxis()
    for axis in axes:
        axis.grid(axis="x", alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, format="png")
    return buffer.getvalue()
