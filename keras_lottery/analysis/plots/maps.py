"""Figures of pictures: loss landscapes, matrices of overlaps, weights of pixels."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_lottery.analysis.landscape import Landscape
from keras_lottery.analysis.overlap import OverlapMatrix
from keras_lottery.analysis.plots import common
from keras_lottery.drawing import text

_LEVELS = 24
_STEEP = 100


def landscape(landscape: Landscape) -> Any:
    """The metric along one random direction, or over the plane of two.

    Args:
        landscape: The measured values.

    Returns:
        A matplotlib Figure: lines, or filled contours, one panel a data set; the center is
        marked. Contours are spaced by the logarithm where values differ a hundredfold; values
        that are not finite stay white.

    Raises:
        ImportError: If matplotlib is missing.

    Source: Li et al., "Visualizing the Loss Landscape of Neural Nets", 1712.09913.

    Example:

    >>> steps = np.array([-1.0, 0.0, 1.0])
    >>> found = Landscape((steps,), {"test": steps**2}, "loss", "filter", "ticket")
    >>> landscape(found).axes[0].get_xlabel()
    'direction 1 (filter-normalized)'
    """
    common.need(landscape.values, "values")
    with common.style():
        return _profile(landscape) if len(landscape.axes) == 1 else _contours(landscape)


def _profile(landscape: Landscape) -> Any:
    scale, name = common.unit(landscape.metric)
    figure = common.canvas(4.6, 7.0)
    axes = figure.subplots()
    for i, (part, values) in enumerate(landscape.values.items()):
        axes.plot(
            landscape.axes[0], scale * values, **common.look(i), markersize=4, linewidth=1.5,
            label=text(part),
        )  # fmt: skip
    axes.axvline(0, color="#555555", linestyle="--", linewidth=1, label=text(landscape.center))
    axes.set(xlabel=_direction(landscape, 1), ylabel=name)
    common.legend(figure, axes)
    return figure


def _contours(landscape: Landscape) -> Any:
    from matplotlib.colors import LogNorm

    scale, name = common.unit(landscape.metric)
    parts = list(landscape.values)
    figure = common.canvas(4.8, 1.0 + 5.0 * len(parts))
    for part, axes in common.panels(figure, parts, len(parts)).items():
        values = np.ma.masked_invalid(scale * np.asarray(landscape.values[part], float).T)
        levels, norm = _levels(values)
        drawn = axes.contourf(*landscape.axes, values, levels=levels, norm=norm, cmap="viridis")
        axes.plot(0, 0, marker="*", markersize=13, color="white", markeredgecolor="black")
        axes.set(xlabel=_direction(landscape, 1), ylabel=_direction(landscape, 2))
        axes.set_title(text(part))
        axes.grid(visible=False)
        axes.locator_params(nbins=5)
        if not values.count():
            axes.text(0, 0.3 * landscape.axes[1].max(), "no finite value", ha="center")
        bar = figure.colorbar(drawn, ax=axes, label=name)
        if isinstance(norm, LogNorm):
            ticks = levels[:: max(1, len(levels) // 6)]
            bar.set_ticks(ticks, labels=[f"{t:.3g}" for t in ticks])
            bar.minorticks_off()
    return figure


def _levels(values: Any) -> tuple[NDArray[np.float64], Any]:
    """Where contours lie, and how colours follow: evenly, or by the logarithm."""
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.ticker import MaxNLocator

    known = values.compressed()
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    if low > 0 and high / low > _STEEP:
        return np.geomspace(low, high, _LEVELS), LogNorm(low, high)
    if high - low <= 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    levels = np.asarray(MaxNLocator(_LEVELS).tick_values(low, high), np.float64)
    return levels, Normalize(levels[0], levels[-1])


def _direction(landscape: Landscape, index: int) -> str:
    kind = landscape.normalization
    return f"direction {index}" if kind == "none" else f"direction {index} ({kind}-normalized)"


def overlap(matrix: OverlapMatrix) -> Any:
    """How alike tickets are: their overlaps, and how far these are from chance.

    The left numbers are the Jaccard overlap in percent, below it what independent random
    masks of the same counts have. The right ones say how many standard deviations of
    chance lie between the two.

    Args:
        matrix: The result of `kl.analysis.overlap_matrix`.

    Returns:
        A matplotlib Figure.

    Raises:
        ImportError: If matplotlib is missing.

    Example:

    >>> half = np.array([[1.0, 0.5], [0.5, 1.0]])
    >>> found = OverlapMatrix(["a", "b"], half, 8 * half, half / 2)
    >>> [t.get_text() for t in overlap(found).axes[0].texts]
    ['50\\n(25)', '50\\n(25)']
    """
    n = len(matrix.names)
    with common.style():
        room = 0.06 * max(len(common.cut(name)) for name in matrix.names)
        figure = common.canvas(max(3.2, 1.0 + 0.62 * n) + room, max(7.0, 3.6 + 1.3 * n) + room)
        left, right = figure.subplots(1, 2, sharey=True)
        shares, chance = _beside(100 * matrix.jaccard), _beside(100 * matrix.expected_jaccard)
        highest = _greatest(shares, 100.0)
        _heat(figure, left, shares, "Jaccard overlap, % (chance)", "Blues", (0.0, highest))
        far = _greatest(np.abs(matrix_z := _beside(matrix.z)), 1.0)
        _heat(figure, right, matrix_z, "z-score against chance", "RdBu_r", (-far, far))
        for i, j in np.argwhere(~np.eye(n, dtype=bool)):
            share, z = shares[i, j], matrix_z[i, j]
            both = f"{_number(share)}\n({_number(chance[i, j])})"
            _write(left, i, j, both, share > 0.6 * highest)
            _write(right, i, j, _signed(z), abs(z) > 0.6 * far)
        names = [common.cut(name) for name in matrix.names]
        for axes in (left, right):
            axes.set_xticks(range(n), names, rotation=45, ha="right", rotation_mode="anchor")
        left.set_yticks(range(n), names)
    return figure


def _beside(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values without the diagonal, which compares each ticket with itself."""
    return np.where(np.eye(len(values), dtype=bool), np.nan, values)


def _greatest(values: NDArray[np.float64], otherwise: float) -> float:
    known = values[np.isfinite(values)]
    return float(known.max()) if known.size and known.max() > 0 else otherwise


def _heat(
    figure: Any, axes: Any, values: NDArray[np.float64], title: str, cmap: str,
    ends: tuple[float, float],
) -> None:  # fmt: skip
    drawn = axes.imshow(values, cmap=cmap, vmin=ends[0], vmax=ends[1])
    axes.set_facecolor("#dddddd")
    axes.grid(visible=False)
    axes.set_title(title, fontsize=11)
    figure.colorbar(drawn, ax=axes, shrink=0.8)


def _write(axes: Any, row: int, column: int, words: str, on_dark: bool) -> None:
    axes.text(
        column, row, words, ha="center", va="center", fontsize=8,
        color="white" if on_dark else "black",
    )  # fmt: skip


def _number(percent: float) -> str:
    return f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}"


def _signed(z: float) -> str:
    return f"{z:+,.0f}" if abs(z) >= 10 else f"{z:+.1f}"


def pixels(pictures: Mapping[str, NDArray[Any]]) -> Any:
    """The alive first-layer weights of each pixel, as pictures with one scale of colours.

    Args:
        pictures: Dict of label (a round, say) to the result of `kl.analysis.alive_per_pixel`.

    Returns:
        A matplotlib Figure. The scale is logarithmic if the greatest counts of two pictures
        differ more than tenfold.

    Raises:
        ValueError: If there is no picture.
        ImportError: If matplotlib is missing.

    Example:

    >>> figure = pixels({"round 0": np.full((2, 2), 9), "round 5": np.eye(2)})
    >>> [axes.get_title() for axes in figure.axes[:2]]
    ['round 0', 'round 5']
    """
    common.need(pictures, "pictures")
    columns = min(5, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    with common.style():
        from matplotlib.colors import SymLogNorm

        figure = common.canvas(0.5 + 2.3 * rows, 1.6 + 2.1 * columns)
        shown = common.panels(figure, list(pictures), columns)
        norm = _counts([np.asarray(p) for p in pictures.values()])
        for label, axes in shown.items():
            drawn = axes.imshow(pictures[label], norm=norm, cmap="magma")
            axes.set_title(text(str(label)), fontsize=10)
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)
        bar = figure.colorbar(drawn, ax=list(shown.values()), label="alive weights of a pixel")
        if isinstance(norm, SymLogNorm):
            ticks = [0.0] + [
                m * 10.0**e for e in range(6) for m in (1, 3) if m * 10**e <= norm.vmax
            ]
            bar.set_ticks(ticks, labels=[f"{t:,.0f}" for t in ticks])
            bar.minorticks_off()
    return figure


def _counts(pictures: list[NDArray[Any]]) -> Any:
    from matplotlib.colors import Normalize, SymLogNorm

    tops = [float(p.max(initial=0)) for p in pictures]
    highest, least = max(tops) or 1.0, min((t for t in tops if t > 0), default=1.0)
    if highest > 10 * least:
        return SymLogNorm(linthresh=1, vmin=0, vmax=highest)
    return Normalize(0, highest)
