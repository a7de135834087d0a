"""Figures with a row for each layer: density, movement, the Ramanujan bound; by round."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_lottery.analysis.anatomy import Anatomy, LayerAnatomy
from keras_lottery.analysis.movement import Movement
from keras_lottery.analysis.plots import common
from keras_lottery.drawing import text
from keras_lottery.masks import Path


@dataclass(frozen=True)
class _Row:
    """One label's values by layer. Rings are the `second` of two kinds, dots the `first`."""

    label: str
    values: dict[Path, float]
    first: str = ""
    second: str = ""


def anatomy(anatomies: Mapping[str, Anatomy]) -> Any:
    """Density and effective density of each layer.

    Where the ring (weights on a path from input to output) is left of the dot, alive weights
    do nothing. At 0 a layer has collapsed.

    Args:
        anatomies: Dict of label to anatomy, of tickets of one architecture.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: If there is nothing to draw.
        ImportError: If matplotlib is missing.

    Example:

    >>> import keras
    >>> from keras_lottery import analysis
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="out")])
    >>> found = analysis.anatomy(model)
    >>> anatomy({"dense": found}).axes[0].get_xlabel()
    'density of the layer, % of its weights'
    """
    common.need(anatomies, "anatomies")
    rows = []
    for label, found in anatomies.items():
        rows.append(_Row(label, {a.path: 100 * a.density for a in found.layers}))
        effective = {a.path: _effective(a) for a in found.layers}
        rows.append(_Row(label, effective, second="effective"))
    with common.style():
        figure, (axes,) = _figure([rows])
        common.percent_axis(axes, [v for row in rows for v in row.values.values()])
        axes.set_xlabel("density of the layer, % of its weights")
        common.legend(figure, axes, most=0)
    return figure


def _effective(layer: LayerAnatomy) -> float:
    """In percent; NaN where the model's graph cannot be seen."""
    if layer.effective is None:
        return math.nan
    return 100 * layer.effective / max(1, layer.total)


def movement(movements: Mapping[str, Sequence[Movement]]) -> Any:
    """How far alive and pruned weights moved, away from 0 or not, and across it.

    Args:
        movements: Dict of label to the result of `kl.analysis.movement`.

    Returns:
        A matplotlib Figure; dots are the alive weights, rings the pruned ones. Values that
        are all NaN are left out.

    Raises:
        ValueError: If there is nothing to draw.
        ImportError: If matplotlib is missing.

    Example:

    >>> found = Movement("net/dense/kernel", 0.5, 0.1, 0.9, 0.4, 0.0, 0.2)
    >>> len(movement({"round 3": [found]}).axes)
    3
    """
    common.need(movements, "movements")
    shown = {
        "moved": (1.0, "mean distance moved"),
        "away": (100.0, "moved away from 0, %"),
        "flips": (100.0, "changed their sign, %"),
    }
    rows = [
        [
            _Row(
                label,
                {m.path: scale * getattr(m, f"{name}_{which}") for m in found},
                **{place: which},
            )
            for label, found in movements.items()
            for place, which in (("first", "alive"), ("second", "pruned"))
        ]
        for name, (scale, _) in shown.items()
    ]
    with common.style():
        figure, panels = _figure(rows)
        for axes, (_, name) in zip(panels, shown.values(), strict=True):
            axes.set_xlabel(name)
            _from_zero(axes)
        common.legend(figure, panels[0], most=0)
    return figure


def ramanujan(anatomies: Mapping[str, Anatomy]) -> Any:
    """The second singular value of each layer's graph over its Ramanujan bound.

    Up to the dashed line at 1 the layer has the property: its connections are spread as well
    as their number allows. Layers without a bound have no marker.

    Args:
        anatomies: Dict of label to anatomy, of tickets of one architecture.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: If there is nothing to draw.
        ImportError: If matplotlib is missing.

    Source: Pal et al., "A Study on the Ramanujan Graph Property of Winning Lottery Tickets".

    Example:

    >>> import keras
    >>> from keras_lottery import analysis
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="out")])
    >>> found = analysis.anatomy(model)
    >>> ramanujan({"dense": found}).axes[0].get_xlabel()
    'second singular value / bound'
    """
    common.need(anatomies, "anatomies")
    rows = [
        _Row(
            label,
            {
                a.path: math.nan
                if a.ramanujan is None or a.ramanujan.holds is None
                else a.ramanujan.singular_value / a.ramanujan.bound
                for a in found.layers
            },
        )
        for label, found in anatomies.items()
    ]
    with common.style():
        figure, (axes,) = _figure([rows])
        axes.axvline(1, color="#555555", linestyle="--", linewidth=1, label="bound")
        _from_zero(axes)
        axes.set_xlabel("second singular value / bound")
        common.legend(figure, axes, most=0)
    return figure


def layers_over_rounds(anatomies: Mapping[str, Anatomy]) -> Any:
    """Density and effective density of each layer, round by round.

    Args:
        anatomies: Dict of a round's label to anatomy, in order.

    Returns:
        A matplotlib Figure, one line a layer. A layer without weights has no point there.

    Raises:
        ValueError: If there is nothing to draw.
        ImportError: If matplotlib is missing.

    Example:

    >>> import keras
    >>> from keras_lottery import analysis
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="out")])
    >>> found = analysis.anatomy(model)
    >>> [axes.get_title() for axes in layers_over_rounds({"0": found}).axes]
    ['alive', 'on a path from input to output']
    """
    common.need(anatomies, "anatomies")
    paths = common.union([a.path for a in found.layers] for found in anatomies.values())
    places = range(len(anatomies))
    with common.style():
        from matplotlib import colormaps

        figure = common.canvas(4.8, 9.6)
        panels = figure.subplots(1, 2, sharey=True)
        for i, (path, name) in enumerate(zip(paths, common.short(paths), strict=True)):
            look = {**common.look(i), "linestyle": "-"}
            look["color"] = colormaps["viridis"](0.88 * i / max(1, len(paths) - 1))
            for axes, values in zip(panels, _by_round(anatomies, path), strict=True):
                axes.plot(places, values, **look, markersize=4, linewidth=1.2, label=name)
        for axes, title in zip(panels, ("alive", "on a path from input to output"), strict=True):
            common.name_ticks(axes, places, [str(label) for label in anatomies])
            axes.set(yscale="log", xlabel="round")
            axes.set_title(title)
        _percent_ticks(panels[0])
        panels[0].set_ylabel("density of the layer, %")
        common.legend(figure, panels[0], most=0)
    return figure


def _percent_ticks(axes: Any) -> None:
    bottom, top = axes.get_ylim()
    ticks = [m * 10.0**e for e in range(-6, 3) for m in (1, 2, 5)]
    ticks = [t for t in ticks if bottom <= t <= top]
    axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()


def _by_round(anatomies: Mapping[str, Anatomy], path: Path) -> tuple[list[float], list[float]]:
    found = [{a.path: a for a in one.layers}.get(path) for one in anatomies.values()]
    alive = [100 * a.density if a and a.alive else math.nan for a in found]
    effective = [_effective(a) if a and a.effective else math.nan for a in found]
    return alive, effective


def _figure(panels: Sequence[Sequence[_Row]]) -> tuple[Any, list[Any]]:
    """Panels side by side with the layers' names at the left, the first layer above."""
    paths = common.union(row.values for row in panels[0])
    common.need(paths, "layers")
    labels = len({row.label for row in panels[0]})
    height = max(2.6, 1.2 + max(0.34, 0.2 * labels) * len(paths))
    figure = common.canvas(height, 7.0 if len(panels) == 1 else 4.0 * len(panels))
    shown = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, rows in zip(shown, panels, strict=True):
        _dots(axes, paths, rows)
    shown[0].set_yticks(range(len(paths)), common.short(paths), fontsize=9)
    shown[0].set_ylim(len(paths) - 0.5, -0.5)
    return figure, list(shown)


def _dots(axes: Any, paths: Sequence[Path], rows: Sequence[_Row]) -> None:
    labels = list(dict.fromkeys(row.label for row in rows))
    gap = 0.7 / len(labels)
    for row in rows:
        if all(math.isnan(value) for value in row.values.values()):
            continue
        index = labels.index(row.label)
        look = common.look(index)
        places = [j + (index - (len(labels) - 1) / 2) * gap for j in range(len(paths))]
        axes.plot(
            [row.values.get(p, math.nan) for p in paths], places, linestyle="none",
            color=look["color"], marker=look["marker"], markersize=9 if row.second else 5,
            markerfacecolor="none" if row.second else look["color"], clip_on=False, zorder=3,
            label=text(", ".join(filter(None, (row.label, row.second or row.first)))),
        )  # fmt: skip
    axes.grid(axis="y", visible=False)
    for place in _between(len(paths)):
        axes.axhline(place, color="#dddddd", linewidth=0.8, zorder=0)


def _from_zero(axes: Any) -> None:
    """The horizontal axis from 0 to a little more than the greatest value."""
    axes.set_xlim(0, 1.06 * max(axes.get_xlim()[1], 1e-9))
    axes.locator_params(axis="x", nbins=5)


def _between(n: int) -> Iterable[float]:
    return (i + 0.5 for i in range(n - 1))
