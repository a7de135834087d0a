"""What the figures share: their style, names of layers, units, legends, axes."""

import math
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any

from keras_lottery import drawing
from keras_lottery.drawing import COLOURS

GREY = "#9a9a9a"
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
_LINES = ("-", "-.", ":")
_INSIDE = 5
_TALLEST = 20
_LONGEST = 34


@contextmanager
def style() -> Iterator[None]:
    """Within it figures are drawn in the package's style; raises without matplotlib."""
    drawing.check_installed()
    with drawing.drawing():
        yield


def canvas(height: float, width: float) -> Any:
    """An empty figure, in inches, with room at its edges."""
    figure = drawing.new(height, width)
    figure.get_layout_engine().set(h_pad=0.09, w_pad=0.09)
    return figure


def look(index: int) -> dict[str, Any]:
    """Colour, marker and line of the index-th line; the first 90 are all different."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": _MARKERS[index % len(_MARKERS)],
        "linestyle": _LINES[index // len(COLOURS) % len(_LINES)],
    }


def need(given: Sized, what: str) -> None:
    """Raises `ValueError` if there is nothing to draw."""
    if not len(given):
        raise ValueError(f"Expected {what} to draw. Received: none.")


def short(paths: Sequence[str]) -> list[str]:
    """Names of layers: the last parts of their paths, as few as tell them apart.

    A last part that all share (`kernel`) is left out.

    Example:

    >>> short(["net/a/kernel", "net/b/kernel"]), short(["net/a/kernel", "net/a/gate"])
    (['a', 'b'], ['a/kernel', 'a/gate'])
    """
    parts = [path.split("/") for path in paths]
    shared = len({p[-1] for p in parts}) == 1 and min(map(len, parts)) > 1
    if shared:
        parts = [p[:-1] for p in parts]
    longest = max(map(len, parts), default=1)
    for n in range(1 if shared else 2, longest + 1):
        names = ["/".join(p[-n:]) for p in parts]
        if len(set(names)) == len(paths):
            break
    else:
        names = list(paths)
    return [cut(name) for name in names]


def cut(name: str) -> str:
    """A name as a figure shows it; of a long one the end."""
    return drawing.text(name if len(name) <= _LONGEST else "…" + name[1 - _LONGEST :])


def unit(metric: str) -> tuple[float, str]:
    """The factor that a metric is drawn with, and its name with the unit.

    Example:

    >>> unit("error"), unit("mean_absolute_error")
    ((100.0, 'error, %'), (1.0, 'mean absolute error'))
    """
    words = metric.replace("_", " ").strip()
    if metric == "error" or metric.endswith("accuracy"):
        return 100.0, f"{words}, %"
    return 1.0, words


def spaced(name: str) -> str:
    """A kind in words."""
    return drawing.text(name.replace("_", " ") if not name.startswith("_") else name)


def legend(figure: Any, axes: Any, most: int = _INSIDE) -> None:
    """A legend of the axes' labels: inside, or to the right if they are more than `most`."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    if len(labels) <= most:
        axes.legend(handles, labels, fontsize=9)
        return
    columns = math.ceil(len(labels) / _TALLEST)
    figure.legend(handles, labels, loc="outside right upper", fontsize=9, ncols=columns)
    longest = max(map(len, labels))
    figure.set_figwidth(figure.get_figwidth() + columns * (0.7 + 0.075 * longest))


def step_axis(axes: Any, steps: Iterable[int], label: str) -> None:
    """A log axis of steps on which 0 has a place; ticks at steps, as many as have room."""
    found = sorted(set(steps))
    positive = [s for s in found if s > 0]
    if len(positive) > 1 and positive[-1] > 5 * positive[0]:
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.5)
        chosen = _apart(positive, (positive[-1] / positive[0]) ** (1 / 5))
        chosen = [s for s in found if s <= 0] + chosen
        axes.set_xticks(chosen, [f"{s:,}" for s in chosen])
        axes.minorticks_off()
        axes.set_xlim(-0.3 * positive[0] if found[0] <= 0 else 0.8 * positive[0], 1.4 * found[-1])
    elif len(found) <= 8:
        axes.set_xticks(found, [f"{s:,}" for s in found])
    axes.set_xlabel(label)


def _apart(steps: Sequence[int], ratio: float) -> list[int]:
    chosen = [steps[-1]]
    for step in reversed(steps[:-1]):
        if chosen[-1] / step >= ratio:
            chosen.append(step)
    return chosen[::-1]


def percent_axis(axes: Any, percents: Iterable[float]) -> None:
    """A horizontal axis in percent, a log one if small values ask for it; 0 has a place."""
    known = [v for v in percents if math.isfinite(v)]
    positive = [v for v in known if v > 0]
    low = min(positive, default=100.0)
    if low >= 10 or not positive:
        axes.set_xlim(-2, 104)
        return
    has_zero = len(positive) < len(known)
    bottom = 10.0 ** math.floor(math.log10(low))
    digits = (1, 2, 5) if bottom >= 1 else (1,)
    chosen = [m * 10.0**e for e in range(round(math.log10(bottom)), 3) for m in digits]
    chosen = [v for v in chosen if v <= 100]
    left = max(v for v in chosen if v <= low * (1 + 1e-9))
    if has_zero:
        axes.set_xscale("symlog", linthresh=bottom, linscale=0.5)
        chosen = [0.0, *chosen]
    else:
        axes.set_xscale("log")
    axes.set_xlim(-0.1 * bottom if has_zero else 0.92 * left, 125)
    chosen = [v for v in chosen if has_zero or v >= left]
    axes.set_xticks(chosen, [f"{v:g}" for v in chosen])
    axes.minorticks_off()


def name_ticks(axes: Any, places: Sequence[float], names: Sequence[str]) -> None:
    """Names below a horizontal axis: at most eight of them, turned if they are long."""
    step = -(-len(names) // 8)
    chosen = [drawing.text(name) for name in names][::step]
    axes.set_xticks(places[::step], chosen, rotation=30 if len("".join(chosen)) > 30 else 0)


def panels(figure: Any, names: Sequence[str], columns: int, **options: Any) -> dict[str, Any]:
    """One axes a name in a grid, titled with it; places left over stay empty."""
    rows = math.ceil(len(names) / columns)
    grid = figure.subplots(rows, columns, squeeze=False, **options).ravel()
    for axes in grid[len(names) :]:
        axes.set_visible(False)
    return dict(zip(names, grid, strict=False))


def union(many: Iterable[Iterable[str]]) -> list[str]:
    """All names, each once, in the order of their first appearance."""
    return list(dict.fromkeys(name for names in many for name in names))
