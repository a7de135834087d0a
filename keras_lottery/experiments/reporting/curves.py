"""The figures of a run's ticket: learning curves and the density of its layers."""

import math
from collections.abc import Sequence
from typing import Any

from keras_lottery import drawing
from keras_lottery.experiments.reporting import figures, styles
from keras_lottery.experiments.reporting.rows import TICKET, Record, number
from keras_lottery.experiments.reporting.statistics import Interval, Point, summarize

_SPREAD = (0.5, 0.21, 0.1, 0.036)
_EARLY = 0.2


def default_rounds(rounds: Sequence[Point]) -> list[int]:
    """The dense round, those nearest to 50, 21, 10 and 3.6% density, and the last.

    Example:

    >>> default_rounds([Point("ticket", r, 0.8**r, 1, {}) for r in range(5)])
    [0, 3, 4]
    """
    own = [p for p in rounds if p.kind == TICKET and p.density > 0]
    if not own:
        return []
    nearest = [min(own, key=lambda p: abs(math.log(p.density / d))).round for d in _SPREAD]
    return sorted({own[0].round, own[-1].round, *nearest})


def learning_curves(
    records: Sequence[Record], rounds: Sequence[int], title: str, interval: Interval
) -> Any:
    """Test accuracy of the ticket against step, one line for each of `rounds`."""
    figure = drawing.new()
    axes = figure.subplots()
    late: list[float] = []
    for index, colour in zip(rounds, _colours(len(rounds)), strict=True):
        own = [r for r in records if r["kind"] == TICKET and r["round"] == index]
        steps, means, low, high = _curve(own, interval)
        if not steps:
            continue
        density = styles.percent(sum(r["density"] for r in own) / len(own))
        axes.plot(steps, means, color=colour, linewidth=1.4, label=f"{density}% (round {index})")
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        late += [
            v
            for s, *ends in zip(steps, low, high, strict=True)
            for v in ends
            if s >= _EARLY * steps[-1]
        ]
    if late:
        edge = max(0.5, 0.05 * (max(late) - min(late)))
        axes.set_ylim(min(late) - edge, max(late) + edge)
    axes.set(xlabel="step", ylabel="test accuracy, %")
    axes.set_title(title)
    figures.legend(figure, axes)
    return figure


def _curve(
    own: Sequence[Record], interval: Interval
) -> tuple[list[int], list[float], list[float], list[float]]:
    """Steps, mean accuracy and the ends of its interval over replicates."""
    at: dict[int, dict[int, list[float]]] = {}
    for record in own:
        curve = record.get("curve") or {}
        for step, value in zip(curve.get("step", []), curve.get("test_accuracy", []), strict=True):
            found = at.setdefault(int(step), {})
            found.setdefault(record.get("replicate", 0), []).append(100 * number({"v": value}, "v"))
    sums = {step: summarize(at[step]) for step in sorted(at)}
    known = {step: s for step, s in sums.items() if s.n}
    bars = [s.bar(interval) for s in known.values()]
    means = [s.mean for s in known.values()]
    return list(known), means, [low for low, _ in bars], [high for _, high in bars]


def layer_densities(records: Sequence[Record], title: str) -> Any:
    """The density of each layer of the first replicate's ticket by round."""
    first = min((r.get("replicate", 0) for r in records if r["kind"] == TICKET), default=0)
    own = [r for r in records if r["kind"] == TICKET and r.get("replicate", 0) == first]
    own.sort(key=lambda r: r["round"])
    paths = list(dict.fromkeys(p for r in own for p in r.get("layer_density") or {}))
    figure = drawing.new()
    axes = figure.subplots()
    for i, (path, name) in enumerate(zip(paths, _short(paths), strict=True)):
        known = [(r["round"], number(r, "layer_density", path)) for r in own]
        known = [(index, density) for index, density in known if density > 0]
        look = {**styles.style(i), "color": _colours(len(paths))[i], "linestyle": "-"}
        axes.plot(
            [k for k, _ in known], [100 * d for _, d in known], **look, markersize=4, label=name
        )
    axes.set(xlabel="round", ylabel="density of the layer, %", yscale="log")
    bottom, top = axes.get_ylim()
    chosen = [m * 10.0**e for e in range(-4, 3) for m in (1, 2, 5)]
    chosen = [t for t in chosen if bottom <= t <= top]
    axes.set_yticks(chosen, [f"{t:g}" for t in chosen])
    axes.minorticks_off()
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title(title)
    if paths:
        figures.legend(figure, axes)
    return figure


def _short(paths: Sequence[str]) -> list[str]:
    """Paths without the first and last parts that all of them share."""
    parts = [path.split("/") for path in paths]
    while len({p[0] for p in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [p[1:] for p in parts]
    while len({p[-1] for p in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [p[:-1] for p in parts]
    return [drawing.text("/".join(p)) for p in parts]


def _colours(n: int) -> list[Any]:
    """`n` colours from dark to light; not so light that they vanish on white."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.88 * i / max(1, n - 1)) for i in range(n)]
