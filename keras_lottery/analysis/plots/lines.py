"""Figures of lines: error between two networks, barriers, sign flips, mask distances."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_lottery.analysis.barrier import Barrier
from keras_lottery.analysis.comparing import Stability
from keras_lottery.analysis.movement import SignFlips
from keras_lottery.analysis.plots import common
from keras_lottery.drawing import text

_STABLE = 2.0


def barrier(barriers: Mapping[str, Sequence[Barrier]], title: str = "Between two networks") -> Any:
    """The metric along the straight line between two networks, one panel a data set.

    A bump in the middle is the barrier: the two lie in different basins. A flat line says
    that they are linearly connected.

    Args:
        barriers: Dict of label to `Barrier`s (of several replicates, say); their mean is
            the line, from the least to the greatest the band.
        title: Title of the figure.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: If there is nothing to draw, or the barriers of a label have different
            points or data.
        ImportError: If matplotlib is missing.

    Example:

    >>> from keras_lottery.analysis.barrier import Barrier
    >>> line = Barrier(np.linspace(0, 1, 3), {"test": np.array([0.1, 0.5, 0.1])}, "error")
    >>> barrier({"k = 0": [line]}).axes[0].get_ylabel()
    'error, %'
    """
    known = {label: list(found) for label, found in barriers.items() if len(found)}
    common.need(known, "barriers")
    parts = common.union(b.values for found in known.values() for b in found)
    with common.style():
        figure = common.canvas(4.6, 4.9 * len(parts) if len(parts) > 1 else 7.0)
        shown = common.panels(figure, parts, len(parts), sharey=True)
        for part, axes in shown.items():
            for i, (label, found) in enumerate(known.items()):
                _line(axes, label, [b for b in found if part in b.values], part, i)
            axes.set_xlabel("position on the line from a (0) to b (1)")
            axes.set_title(text(part) if len(parts) > 1 else title)
        first = next(iter(known.values()))[0]
        shown[parts[0]].set_ylabel(common.unit(first.metric)[1])
        if len(parts) > 1:
            figure.suptitle(title)
        common.legend(figure, shown[parts[0]])
    return figure


def _line(axes: Any, label: str, found: Sequence[Barrier], part: str, index: int) -> None:
    if not found:
        return
    if any(not np.array_equal(b.alphas, found[0].alphas) for b in found):
        raise ValueError(
            f"The barriers of {label!r} must have the same points. Received: "
            f"{[len(b.alphas) for b in found]} points."
        )
    scale = common.unit(found[0].metric)[0]
    values = scale * np.array([b.values[part] for b in found])
    colour = common.look(index)["color"]
    name = f"{label} (n = {len(found)})" if len(found) > 1 else label
    axes.plot(
        found[0].alphas, values.mean(axis=0), color=colour, linewidth=1.6, label=text(name),
        linestyle=common.look(index)["linestyle"],
    )  # fmt: skip
    if len(found) > 1:
        axes.fill_between(
            found[0].alphas, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15,
            linewidth=0,
        )  # fmt: skip


def barrier_heights(stability: Stability, part: str | None = None) -> Any:
    """The barrier between two data orders against the step k that both start from.

    Where a line falls below the dashed one at 2 %, networks are stable to the order.

    Args:
        stability: The measured comparisons.
        part: Which data; default all of them, one panel each.

    Returns:
        A matplotlib Figure; error bars are one standard deviation.

    Raises:
        ValueError: If no barrier between data orders was measured, or not on `part`.
        ImportError: If matplotlib is missing.

    Example:

    >>> from keras_lottery.analysis.comparing import Comparison
    >>> line = Barrier(np.linspace(0, 1, 3), {"test": np.array([0.1, 0.5, 0.1])}, "error")
    >>> one = Comparison("ticket", "order", 0, 0, (0, 1), 0.1, 20.7, 22.7, line)
    >>> barrier_heights(Stability([one])).axes[0].get_xlabel()
    'step k of the rewind point'
    """
    rows = [row for row in stability.rows() if row["what"] == "order"]
    parts = [k[8:-5] for k in common.union(rows) if k.startswith("barrier_") and k[-5:] == "_mean"]
    if not parts or part not in (None, *parts):
        raise ValueError(f"Expected barriers on {part or 'data'!r}. Received those on {parts}.")
    metric = next(c.barrier.metric for c in stability.comparisons if c.barrier is not None)
    chosen = parts if part is None else [part]
    with common.style():
        figure = common.canvas(4.6, 4.9 * len(chosen) if len(chosen) > 1 else 7.0)
        shown = common.panels(figure, chosen, len(chosen), sharey=True)
        for name, axes in shown.items():
            _heights(axes, rows, name, common.unit(metric)[0])
            axes.set_title(text(name))
        axes = shown[chosen[0]]
        axes.set_ylabel(f"barrier: {common.unit(metric)[1]}")
        common.legend(figure, axes)
    return figure


def _heights(axes: Any, rows: Sequence[Mapping[str, Any]], part: str, scale: float) -> None:
    for i, kind in enumerate(dict.fromkeys(row["kind"] for row in rows)):
        own = [r for r in rows if r["kind"] == kind and r.get(f"barrier_{part}_mean") is not None]
        own.sort(key=lambda row: row["step"])
        means = scale * np.array([r[f"barrier_{part}_mean"] for r in own], float)
        spread = scale * np.nan_to_num(np.array([r[f"barrier_{part}_std"] for r in own], float))
        axes.errorbar(
            [r["step"] for r in own], means, spread, **common.look(i), markersize=5,
            linewidth=1.4, elinewidth=0.9, capsize=3, label=common.spaced(kind),
        )  # fmt: skip
    if scale == 100:
        axes.axhline(_STABLE, color="#555555", linestyle="--", linewidth=1, label="2 %: stable")
    common.step_axis(axes, [r["step"] for r in rows], "step k of the rewind point")


def sign_flips(
    flips: Mapping[str, SignFlips],
    steps: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
) -> Any:
    """How many alive weights have another sign than before, and than at first.

    Args:
        flips: Dict of label to the result of `kl.analysis.sign_flips`.
        steps: The steps of the sets of weights after the first. Default: 1, 2, 3, ...
        names: What to call these sets below the axis, as `["round 0", "round 3"]`. Default:
            by `steps`.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: If there is nothing to draw, or `steps` or `names` has another length.
        ImportError: If matplotlib is missing.

    Example:

    >>> found = SignFlips(np.array([0.1, 0.0]), np.array([0.1, 0.1]))
    >>> [axes.get_title() for axes in sign_flips({"ticket": found}).axes]
    ['since the point before', 'since the first point']
    """
    common.need(flips, "sign flips")
    for label, found in flips.items():
        for what, given in (("steps", steps), ("names", names)):
            if given is not None and len(given) != len(found.from_first):
                raise ValueError(
                    f"`{what}` must have one entry for each set of weights after the first. "
                    f"Received {len(given)} for the {len(found.from_first)} of {label!r}."
                )
    with common.style():
        figure = common.canvas(4.4, 9.6)
        left, right = figure.subplots(1, 2, sharey=True)
        for i, (label, found) in enumerate(flips.items()):
            for axes, shares in ((left, found.from_previous), (right, found.from_first)):
                _curve(axes, label, 100 * shares, i, steps)
        for axes, since in ((left, "the point before"), (right, "the first point")):
            axes.set(xlabel="step" if steps is not None else "point of the trajectory")
            axes.set_title(f"since {since}")
            if names is not None:
                common.name_ticks(axes, steps or range(1, len(names) + 1), names)
        top = max(float(f.from_first.max(initial=0)) for f in flips.values())
        top = max(top, *(float(f.from_previous.max(initial=0)) for f in flips.values()))
        left.set_ylim(0, 108 * top or 1)
        left.set_ylabel("alive weights with another sign, %")
        common.legend(figure, right if len(flips) > 1 else left)
    return figure


def mask_distances(distances: Mapping[str, Sequence[float]], threshold: float | None = None) -> Any:
    """How much the mask that pruning would draw still changes, by epoch.

    Args:
        distances: Dict of label to the distances of an `EarlyBird`, one an epoch; NaN where
            there is none yet.
        threshold: Where a ticket counts as found; default no line.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: If there is nothing to draw.
        ImportError: If matplotlib is missing.

    Source: You et al., "Drawing Early-Bird Tickets", 1909.11957.

    Example:

    >>> mask_distances({"ticket": [0.5, 0.1]}, threshold=0.1).axes[0].get_xlabel()
    'epoch'
    """
    common.need(distances, "mask distances")
    with common.style():
        figure = common.canvas(4.6, 7.0)
        axes = figure.subplots()
        for i, (label, values) in enumerate(distances.items()):
            _curve(axes, label, 100 * np.array(values, float), i, None)
        if threshold is not None:
            axes.axhline(
                100 * threshold, color="#555555", linestyle="--", linewidth=1, label="threshold"
            )
        axes.set(xlabel="epoch", ylabel="mask bits that differ, %")
        axes.set_ylim(bottom=0)
        common.legend(figure, axes)
    return figure


def _curve(
    axes: Any, label: str, values: NDArray[np.float64], index: int, steps: Sequence[int] | None
) -> None:
    at = range(1, len(values) + 1) if steps is None else steps
    axes.plot(at, values, **common.look(index), markersize=4, linewidth=1.4, label=text(label))
    if len(at) == 1:
        axes.set_xticks(at)
    elif steps is None:
        axes.xaxis.get_major_locator().set_params(integer=True)
