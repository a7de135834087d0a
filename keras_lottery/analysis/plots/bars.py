"""Figures of bars: stability, and histograms of connections and initial values."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_lottery.analysis.anatomy import Anatomy
from keras_lottery.analysis.comparing import Stability
from keras_lottery.analysis.movement import InitialValues
from keras_lottery.analysis.plots import common
from keras_lottery.drawing import COLOURS
from keras_lottery.masks import Path

_NUMBERS = 18
_BINS = 30
_WHAT = {"order": "data order", "pruning": "pruning"}


def stability(stability: Stability) -> Any:
    """Distance and angle between trained networks that differ in data order or in pruning.

    Shorter bars are more stable. A ticket is to be compared with the random mask of the
    same counts beside it, not with the dense network, whose distance is over more weights.

    Args:
        stability: The measured comparisons.

    Returns:
        A matplotlib Figure; error bars are one standard deviation.

    Raises:
        ValueError: If there is no comparison.
        ImportError: If matplotlib is missing.

    Example:

    >>> from keras_lottery.analysis.comparing import Comparison
    >>> one = Comparison("ticket", "order", 0, 0, (0, 1), 0.1, 20.7, 22.7, None)
    >>> [text.get_text() for axes in stability(Stability([one])).axes for text in axes.texts]
    ['20.7', '22.7']
    """
    rows = stability.rows()
    common.need(rows, "comparisons")
    groups = sorted({(r["what"], r["step"]) for r in rows})
    kinds = list(dict.fromkeys(r["kind"] for r in rows))
    wide = len(groups) * len(kinds) > 9
    with common.style():
        figure = common.canvas(8.0, 9.0) if wide else common.canvas(4.4, 9.6)
        upper, lower = figure.subplots(2, 1) if wide else figure.subplots(1, 2)
        for axes, value in ((upper, "distance"), (lower, "angle")):
            for i, kind in enumerate(kinds):
                own = {(r["what"], r["step"]): r for r in rows if r["kind"] == kind}
                _bars(axes, value, [own.get(group) for group in groups], kind, i, len(kinds))
            names = [f"{_WHAT.get(what, what)}\nk = {step:,}" for what, step in groups]
            size = 10 if len(groups) <= 8 else 8
            axes.set_xticks(range(len(groups)), names, fontsize=size)
            axes.set_xlim(-0.6, len(groups) - 0.4)
            axes.grid(axis="x", visible=False)
        upper.set_ylabel("L2 distance of the alive weights")
        lower.set_ylabel("angle of the alive weights, degrees")
        common.legend(figure, upper, most=0)
    return figure


def _bars(axes: Any, value: str, rows: Sequence[Any], kind: str, index: int, kinds: int) -> None:
    """One kind's bars; a group that the kind is missing in keeps its place empty."""
    means = np.array([math.nan if r is None else r[f"{value}_mean"] for r in rows], float)
    spread = np.array([0.0 if r is None else r[f"{value}_std"] for r in rows], float)
    width = min(0.8 / kinds, 0.4)
    places = np.arange(len(rows)) + (index - (kinds - 1) / 2) * width
    made = axes.bar(
        places, means, 0.92 * width, yerr=np.nan_to_num(spread), color=common.look(index)["color"],
        error_kw={"elinewidth": 0.9, "capsize": 2}, label=common.spaced(kind),
    )  # fmt: skip
    if len(rows) * kinds <= _NUMBERS:
        numbers = [f"{m:.3g}" if math.isfinite(m) else "" for m in means]
        axes.bar_label(made, numbers, fontsize=8, padding=2)
        axes.margins(y=0.12)


def connectivity(anatomy: Anatomy) -> Any:
    """How many alive weights enter each unit and leave each input, by layer.

    Args:
        anatomy: The anatomy of a ticket.

    Returns:
        A matplotlib Figure with two histograms a layer; dashed lines are the means.

    Raises:
        ValueError: If there is no layer.
        ImportError: If matplotlib is missing.

    Source: Frankle & Carbin, 1803.03635, appendix F (in- and outgoing connectivity).

    Example:

    >>> import keras
    >>> from keras_lottery.analysis.anatomy import anatomy
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="out")])
    >>> [axes.get_title() for axes in connectivity(anatomy(model)).axes]
    ['out: into a unit', 'out: out of an input']
    """
    layers = anatomy.layers
    common.need(layers, "layers")
    names = common.short([layer.path for layer in layers])
    beside = 1 if len(layers) <= 8 else 2
    rows = math.ceil(len(layers) / beside)
    with common.style():
        figure = common.canvas(0.9 + 1.75 * rows, 8.5 * beside)
        grid = figure.subplots(rows, 2 * beside, squeeze=False)
        for i, (layer, name) in enumerate(zip(layers, names, strict=True)):
            pair = grid[i % rows, 2 * (i // rows) : 2 * (i // rows) + 2]
            _connections(pair[0], layer.incoming, COLOURS[0], f"{name}: into a unit")
            _connections(pair[1], layer.outgoing, COLOURS[1], f"{name}: out of an input")
        for axes in (
            grid.T.reshape(beside, 2, rows).transpose(0, 2, 1).reshape(-1, 2)[len(layers) :]
        ):
            for one in axes:
                one.set_visible(False)
        figure.supxlabel("alive weights", fontsize=11)
        figure.supylabel("units", fontsize=11)
    return figure


def _connections(axes: Any, degrees: NDArray[Any], colour: str, title: str) -> None:
    flat = np.asarray(degrees).ravel()
    axes.set_title(title, fontsize=10)
    if not flat.size:
        return
    low, high = int(flat.min()), int(flat.max())
    width = max(1, math.ceil((high - low + 1) / _BINS))
    edges = np.arange(low, high + width + 1, width) - 0.5
    axes.stairs(np.histogram(flat, edges)[0], edges, fill=True, color=colour, alpha=0.75)
    axes.axvline(flat.mean(), color="#333333", linestyle="--", linewidth=1)
    axes.set_ylim(bottom=0)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.xaxis.get_major_locator().set_params(integer=True)


def initial_values(values: Mapping[Path, InitialValues]) -> Any:
    """The values that survivors begin with, against those of all weights, by layer.

    Both are shares of their own number: where the line is above the grey area, weights
    survive more often than others. Magnitude pruning leaves a gap around 0.

    Args:
        values: The result of `kl.analysis.initial_values`.

    Returns:
        A matplotlib Figure, one panel a layer.

    Raises:
        ValueError: If there is no layer.
        ImportError: If matplotlib is missing.

    Example:

    >>> one = InitialValues(np.array([-1.0, 0.0, 1.0]), np.array([1, 0]), np.array([5, 5]))
    >>> initial_values({"net/dense/kernel": one}).axes[0].get_title()
    'dense: 1 of 10 alive'
    """
    common.need(values, "layers")
    names = dict(zip(values, common.short(list(values)), strict=True))
    columns = min(3, len(values))
    rows = math.ceil(len(values) / columns)
    with common.style():
        figure = common.canvas(1.2 + 2.5 * rows, max(5.5, 4.0 * columns))
        shown = common.panels(figure, list(values), columns)
        for path, axes in shown.items():
            found = values[path]
            alive, every = int(found.alive.sum()), int(found.all.sum())
            axes.stairs(
                100 * found.all / max(1, every), found.edges, fill=True, color=common.GREY,
                alpha=0.55, label="all weights",
            )  # fmt: skip
            axes.stairs(
                100 * found.alive / max(1, alive), found.edges, color=COLOURS[0], linewidth=1.5,
                label="survivors",
            )  # fmt: skip
            axes.set_title(f"{names[path]}: {alive:,} of {every:,} alive", fontsize=10)
        figure.supxlabel("value at the rewind point", fontsize=11)
        figure.supylabel("share of the weights in a bin, %", fontsize=11)
        common.legend(figure, next(iter(shown.values())), most=0)
    return figure
