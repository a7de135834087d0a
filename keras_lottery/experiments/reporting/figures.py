"""The figures of a report, drawn without a screen; each function returns one figure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_lottery.drawing import new, text
from keras_lottery.experiments.reporting import styles
from keras_lottery.experiments.reporting.statistics import STEP, Interval, Point, Summary

_INSIDE = 6
_TALLEST = 20


@dataclass(frozen=True)
class Line:
    """Points joined by one line, with the dense network they are compared with."""

    label: str
    style: dict[str, Any]
    points: list[Point]
    dense: Point | None = None


def against_density(lines: Sequence[Line], metric: str, title: str, interval: Interval) -> Any:
    """One metric against density, decreasing to the right.

    Where the accuracies near the dense one take up little of the axis, a second panel above
    shows them enlarged.
    """
    low = _enlarged(lines, metric)
    figure = new(4.8 if low is None else 7.2)
    if low is None:
        panels = [figure.subplots()]
    else:
        panels = list(figure.subplots(2, 1, sharex=True, height_ratios=(3, 2)))
    for axes in panels:
        _draw(axes, lines, metric, interval)
    if low is not None:
        panels[0].set_ylim(100 * low[0], 100 * low[1])
    panels[0].set_title(title)
    density_axis(panels[-1], [p.density for line in lines for p in line.points])
    legend(figure, panels[0], most=_INSIDE if low is None else 0)
    return figure


def density_axis(axes: Any, densities: Sequence[float]) -> None:
    """A log axis of densities in percent, the densest to the left."""
    chosen = styles.ticks(densities)
    axes.set(xlabel="density, % of weights alive", xscale="log")
    if chosen:
        edge = max((chosen[0] / chosen[-1]) ** 0.03, 1.05)
        axes.set_xlim(100 * chosen[0] * edge, 100 * chosen[-1] / edge)
        axes.set_xticks([100 * t for t in chosen], [styles.percent(t) for t in chosen])
    axes.minorticks_off()


def legend(figure: Any, axes: Any, most: int = _INSIDE) -> None:
    """A legend of the axes' lines: inside, or to the right if they are more than `most`."""
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(
        range(len(labels)), key=lambda i: handles[i] in axes.lines and bool(axes.containers)
    )
    handles, labels = [handles[i] for i in order], [labels[i] for i in order]
    if len(labels) <= most:
        axes.legend(handles, labels, fontsize=9)
        return
    columns = math.ceil(len(labels) / _TALLEST)
    figure.legend(handles, labels, loc="outside right upper", fontsize=9, ncols=columns)
    figure.set_figwidth(figure.get_figwidth() + 2.5 * columns)


def _draw(axes: Any, lines: Sequence[Line], metric: str, interval: Interval) -> None:
    scale = 1 if metric == STEP else 100
    for line in lines:
        known = [p for p in line.points if p.values[metric].n and p.density > 0]
        means = [scale * p.values[metric].mean for p in known]
        bars = [p.values[metric].bar(interval) for p in known]
        errors = [
            [max(0.0, m - scale * low) for m, (low, _) in zip(means, bars, strict=True)],
            [max(0.0, scale * high - m) for m, (_, high) in zip(means, bars, strict=True)],
        ]
        axes.errorbar(
            [100 * p.density for p in known], means, errors, **line.style, label=text(line.label),
            markersize=4.5, linewidth=1.4, elinewidth=0.9, capsize=2,
        )  # fmt: skip
    compared = {id(line.dense): line for line in lines if line.dense}
    for line in compared.values():
        if line.dense:
            _draw_dense(axes, line, line.dense.values[metric], scale, len(compared) > 1)
    axes.set_ylabel("early-stop step" if metric == STEP else "test accuracy, %")


def _draw_dense(axes: Any, line: Line, dense: Summary, scale: float, several: bool) -> None:
    """The dense mean, with a band of one standard deviation if there are replicates."""
    if not dense.n:
        return
    colour = line.style["color"] if several else "#555555"
    name = f"{line.label}, dense" if several else "dense"
    if dense.replicates > 1:
        name += " ± 1 std"
        ends = (scale * (dense.mean - dense.std), scale * (dense.mean + dense.std))
        axes.axhspan(*ends, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(scale * dense.mean, color=colour, linestyle="--", linewidth=1, label=text(name))


def _enlarged(lines: Sequence[Line], metric: str) -> tuple[float, float] | None:
    """The accuracies to enlarge, or `None` if the whole range is not much larger."""
    dense = [v.mean for line in lines if line.dense and (v := line.dense.values[metric]).n]
    spread = [v for line in lines for p in line.points if (v := p.values[metric]).n]
    if metric == STEP or not dense or not spread:
        return None
    top, bottom = max(v.most for v in spread), min(v.least for v in spread)
    reach = max(0.01, 3 * (top - max(dense)), max(dense) - min(dense))
    low, high = min(dense) - reach, top + reach / 5
    return (low, high) if bottom < low - 1.5 * (high - low) else None


def lines_of_kinds(
    rounds: Sequence[Point], dense: Point | None, looks: Mapping[str, dict[str, Any]]
) -> list[Line]:
    """One line for each kind of a run."""
    kinds = dict.fromkeys(p.kind for p in rounds)
    return [
        Line(styles.label(k), looks[k], [p for p in rounds if p.kind == k], dense) for k in kinds
    ]
