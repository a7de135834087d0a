"""Scopes in which single weights compete: over all layers, inside each, or by ERK shares."""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from keras_lottery.masks import Masks, Path
from keras_lottery.schedules import Keep, keep_fraction
from keras_lottery.scopes.ranking import Scores, competing, keep_best


@dataclass(frozen=True)
class Global:
    """All layers compete for the same survivors, as for the papers' ResNets and VGGs.

    No layer is emptied: each keeps at least one weight, or `min_layer_density` of
    its weights. Where the ranking alone would go below that, the layer's own best
    weights stay, others go in their place, and a warning says so.

    Args:
        exclude: Regex of paths that are left as they are. Default: none.
        min_layer_density: Float in [0, 1], the least density of each layer. Default
            `None`: one weight. 0.0 allows a layer to be emptied.

    Source: Frankle & Carbin, 1803.03635, section 4.

    Example:

    >>> scores = {"a": np.array([9.0, 8.0]), "b": np.array([7.0, 1.0])}
    >>> alive = {"a": np.ones(2, bool), "b": np.ones(2, bool)}
    >>> {p: m.tolist() for p, m in Global()(scores, alive, keep_fraction(0.25)).items()}
    {'a': [True, True], 'b': [True, False]}
    """

    exclude: str | None = None
    min_layer_density: float | None = None

    def __post_init__(self) -> None:
        if self.min_layer_density is not None and not 0 <= self.min_layer_density <= 1:
            raise ValueError(
                f"`min_layer_density` must lie in [0, 1]. Received: {self.min_layer_density}"
            )

    def __call__(self, scores: Scores, masks: Masks, keep: Keep) -> Masks:
        group = {p: masks[p] for p in competing(masks, self.exclude)}
        alive = sum(int(np.count_nonzero(m)) for m in group.values())
        n = keep(alive, sum(m.size for m in group.values()))
        chosen = keep_best(scores, group, n)
        floors = {p: self._floor(m) for p, m in group.items()}
        short = [p for p in group if np.count_nonzero(chosen[p]) < floors[p]]
        if short:
            chosen = self._keep_with_floors(scores, group, n, floors, short)
        return {p: chosen.get(p, masks[p]) for p in masks}

    def _floor(self, mask: NDArray[np.bool_]) -> int:
        least = 1 if self.min_layer_density is None else round(self.min_layer_density * mask.size)
        return min(least, int(np.count_nonzero(mask)))

    def _keep_with_floors(
        self, scores: Scores, group: Masks, n: int, floors: dict[Path, int], short: list[Path]
    ) -> Masks:
        if sum(floors.values()) > n:
            raise ValueError(
                f"{n} weights are to survive, but the least density of each layer asks for "
                f"{sum(floors.values())}: {floors}. Lower `min_layer_density` or prune less."
            )
        warnings.warn(
            f"Global pruning would have left fewer than the least number of weights in {short}; "
            "their best weights were kept instead (see `min_layer_density`).",
            stacklevel=4,
        )
        safe = {p: keep_best({p: scores[p]}, {p: m}, floors[p])[p] for p, m in group.items()}
        rest = {p: m & ~safe[p] for p, m in group.items()}
        chosen = keep_best(scores, rest, n - sum(floors.values()))
        return {p: chosen[p] | safe[p] for p in group}


@dataclass(frozen=True)
class Layerwise:
    """Each layer's weights compete among themselves, at their own rate if given.

    The paper's rates are `Layerwise(output_fraction=0.1)` with `prune_fraction=0.2`
    for LeNet, and `Layerwise({"conv": 0.1}, output_fraction=0.1)` for Conv-2 and
    Conv-4 (`{"conv": 0.15}` for Conv-6).

    Args:
        fractions: Dict of regex to the fraction in [0, 1) of the survivors that those
            paths lose each round, instead of the schedule's. The first match counts.
        output_fraction: The same for the output layer: the last path of the masks,
            which is the last prunable weight of the model. Default: the schedule's.

    Source: Frankle & Carbin, 1803.03635, figure 2.

    Example:

    >>> scores = {"a": np.arange(4.0), "b": np.arange(4.0)}
    >>> alive = {"a": np.ones(4, bool), "b": np.ones(4, bool)}
    >>> half = Layerwise(output_fraction=0.25)(scores, alive, keep_fraction(0.5))
    >>> {p: m.tolist() for p, m in half.items()}
    {'a': [False, False, True, True], 'b': [False, True, True, True]}
    """

    fractions: Mapping[str, float] = field(default_factory=dict)
    output_fraction: float | None = None

    def __post_init__(self) -> None:
        rates = dict(self.fractions) | {"output_fraction": self.output_fraction or 0.0}
        for name, rate in rates.items():
            if not 0 <= rate < 1:
                raise ValueError(f"A layer's fraction must lie in [0, 1). Received: {name}={rate}")

    def __call__(self, scores: Scores, masks: Masks, keep: Keep) -> Masks:
        for pattern in self.fractions:
            if not any(re.search(pattern, p) for p in masks):
                raise ValueError(f"The fraction of {pattern!r} matches no path of {list(masks)}.")
        keeps = self._keeps(list(masks), keep)
        return {
            p: keep_best({p: scores[p]}, {p: m}, keeps[p](int(np.count_nonzero(m)), m.size))[p]
            for p, m in masks.items()
        }

    def _keeps(self, paths: Sequence[Path], keep: Keep) -> dict[Path, Keep]:
        keeps = dict.fromkeys(paths, keep)
        for path in paths:
            for pattern, fraction in self.fractions.items():
                if re.search(pattern, path):
                    keeps[path] = keep_fraction(fraction)
                    break
        if self.output_fraction is not None:
            keeps[paths[-1]] = keep_fraction(self.output_fraction)
        return keeps


@dataclass(frozen=True)
class ERK:
    """Layer densities by the Erdos-Renyi-kernel rule; weights compete inside a layer.

    A layer's density is proportional to `sum(shape) / prod(shape)`; layers that
    would pass 1 stay dense. The total over all layers is exactly what the schedule
    asks for, unless a layer has fewer alive weights than its share.

    Source: Mocanu et al., 1707.04780; Evci et al., 1911.11134.

    Example:

    >>> ERK.shares({"a": (100, 100), "b": (10, 10)}, 2000)
    {'a': 1900, 'b': 100}
    """

    def __call__(self, scores: Scores, masks: Masks, keep: Keep) -> Masks:
        alive = {p: int(np.count_nonzero(m)) for p, m in masks.items()}
        n = keep(sum(alive.values()), sum(m.size for m in masks.values()))
        shares = self.shares({p: m.shape for p, m in masks.items()}, n)
        return {
            p: keep_best({p: scores[p]}, {p: m}, min(shares[p], alive[p]))[p]
            for p, m in masks.items()
        }

    @staticmethod
    def shares(shapes: Mapping[Path, tuple[int, ...]], n: int) -> dict[Path, int]:
        """How many of `n` weights each path keeps, by the ERK rule."""
        sizes = {p: int(np.prod(s)) for p, s in shapes.items()}
        raw = {p: float(sum(shapes[p])) for p in shapes}
        dense: set[Path] = set()
        while True:
            rest = [p for p in shapes if p not in dense]
            left = n - sum(sizes[p] for p in dense)
            scale = max(left, 0) / sum(raw[p] for p in rest) if rest else 0.0
            full = {p for p in rest if scale * raw[p] > sizes[p]}
            if not full:
                break
            dense |= full
        exact = {p: sizes[p] if p in dense else scale * raw[p] for p in shapes}
        shares = {p: int(exact[p]) for p in shapes}
        by_remainder = sorted(shapes, key=lambda p: (shares[p] - exact[p], p))
        for path in by_remainder[: n - sum(shares.values())]:
            shares[path] += 1
        return shares
