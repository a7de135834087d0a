"""What is compared with what, to say how stable a network's training is."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean, stdev
from typing import Any, Literal

import keras

from keras_lottery import masks as mask_ops
from keras_lottery.analysis.barrier import STABLE, Barrier, error_barrier
from keras_lottery.analysis.distances import angle, distance
from keras_lottery.analysis.evaluating import Evaluation
from keras_lottery.masks import Array, Masks, Path

DENSE = "dense"
What = Literal["order", "pruning"]
Trained = Callable[["Case"], Mapping[Path, Array]]


@dataclass(frozen=True)
class Case:
    """One training.

    Attributes:
        kind: `"dense"`, `"ticket"`, `"random_mask"`, or a name of one's own.
        step: The rewind point k, from which it trains.
        replicate: Index of the network that was trained up to k.
        order: Index of the data order from k on.
    """

    kind: str
    step: int
    replicate: int
    order: int


@dataclass(frozen=True)
class Comparison:
    """Two trainings from one rewind point.

    Attributes:
        kind: The kind of network compared.
        what: `"order"`: two data orders of that kind. `"pruning"`: that kind against the
            dense network, of the same data order.
        step: The rewind point k.
        replicate: Index of the replicate.
        orders: The indices of the two data orders.
        density: Alive over all weights that the kind's masks cover, in [0, 1].
        distance: L2 distance over the kind's alive weights.
        angle: Angle over them, in degrees.
        barrier: Between two data orders, if it was asked for.
    """

    kind: str
    what: What
    step: int
    replicate: int
    orders: tuple[int, int]
    density: float
    distance: float
    angle: float
    barrier: Barrier | None


@dataclass(frozen=True)
class Stability:
    """All comparisons.

    Attributes:
        comparisons: List of `Comparison`.
    """

    comparisons: list[Comparison]

    @property
    def final(self) -> dict[str, dict[int, list[dict[str, float]]]]:
        """The metric of each training whose barrier was measured: kind, step, then a list.

        The list has one dict of part to value for each replicate and data order.
        """
        ends: dict[Case, dict[str, float]] = {}
        for c in self.comparisons:
            for order, end in zip(c.orders, (0, -1), strict=True):
                if c.barrier is not None:
                    found = {part: float(v[end]) for part, v in c.barrier.values.items()}
                    ends[Case(c.kind, c.step, c.replicate, order)] = found
        final: dict[str, dict[int, list[dict[str, float]]]] = {}
        for case, found in ends.items():
            final.setdefault(case.kind, {}).setdefault(case.step, []).append(found)
        return final

    def rows(self) -> list[dict[str, Any]]:
        """Means over replicates and pairs, one row for each kind, what and step.

        Returns:
            List of dicts: `kind`, `what`, `step`, `density`, `n` (how many comparisons),
            `distance_mean`, `distance_std`, `angle_mean`, `angle_std` (degrees); with
            barriers, for each part of the data, `barrier_<part>_mean` and `_std`,
            `end_<part>_mean` (the metric of the trained networks) and `stable_<part>` (mean
            barrier below 0.02). A `_std` is the sample standard deviation, NaN below two.
        """
        groups: dict[tuple[str, What, int], list[Comparison]] = {}
        for c in self.comparisons:
            groups.setdefault((c.kind, c.what, c.step), []).append(c)
        return [_row(group) for group in groups.values()]


def compare(
    trained: Trained,
    masks: Callable[[Case], Masks | None],
    cases: Iterable[Case],
    model: keras.Model | None = None,
    evaluation: Evaluation | None = None,
    points: int = 30,
    on_comparison: Callable[[Comparison], None] | None = None,
) -> Stability:
    """Compares trainings: data orders with each other, every kind with the dense network.

    `trained` is asked when a pair needs it, the same case several times if there are more
    than two orders; what it returned is let go after the pair. So two networks are held.

    Args:
        trained: Function `Case -> weights`: dict of path to array after training.
        masks: Function `Case -> masks`: over whose alive weights distances are taken.
            `None`: over all weights and statistics.
        cases: The trainings there are. Orders are paired within a kind, step and replicate;
            `"pruning"` needs a case of kind `"dense"` of the same step, replicate and order.
        model: The Keras model on which barriers are measured. Default: no barriers.
        evaluation: Its `Evaluation`. Default: no barriers.
        points: Integer, at least 2: points on the line between two data orders.
        on_comparison: Function called with each `Comparison` when it is made.

    Returns:
        A `Stability`.

    Raises:
        ValueError: If there is nothing to compare, or weights and masks do not fit.

    Source: Stabilizing the LTH, 1903.01611, section 4; Linear Mode Connectivity, 1912.05671.

    Example:

    >>> import numpy as np
    >>> weights = {0: {"w": np.array([3.0, 9.0])}, 1: {"w": np.array([0.0, 9.0])}}
    >>> cases = [Case("ticket", step=0, replicate=0, order=u) for u in (0, 1)]
    >>> alive = {"w": np.array([True, False])}
    >>> found = compare(lambda c: {"w": weights[c.order]["w"] + 1}, lambda c: alive, cases)
    >>> [(c.what, c.distance, c.density) for c in found.comparisons]
    [('order', 3.0, 0.5)]
    """
    if (model is None) != (evaluation is None):
        raise ValueError("A barrier needs both `model` and its `evaluation`. Received: one of them")

    def made(a: Case, b: Case, what: What) -> Comparison:
        alive, first, second = masks(b), trained(a), trained(b)
        barrier = None
        if model is not None and what == "order":
            barrier = error_barrier(model, first, second, points=points, evaluation=evaluation)
        found = Comparison(
            kind=b.kind,
            what=what,
            step=b.step,
            replicate=b.replicate,
            orders=(a.order, b.order),
            density=1.0 if alive is None else mask_ops.density(alive),
            distance=distance(first, second, alive),
            angle=angle(first, second, alive),
            barrier=barrier,
        )
        if on_comparison is not None:
            on_comparison(found)
        return found

    pairs = _pairs(list(dict.fromkeys(cases)))
    if not pairs:
        raise ValueError(
            "There is nothing to compare: expected two data orders of a kind from the same step "
            f"and replicate, or a kind and {DENSE!r} with the same order."
        )
    return Stability([made(a, b, what) for a, b, what in pairs])


def _pairs(cases: list[Case]) -> list[tuple[Case, Case, What]]:
    """Kind by kind, so that what `trained` keeps of one kind may go with it."""
    groups: dict[tuple[int, int, str], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.step, case.replicate, case.kind), []).append(case)
    pairs: list[tuple[Case, Case, What]] = []
    for group in groups.values():
        pairs += [(a, b, "order") for a, b in combinations(group, 2)]
        dense = [(replace(case, kind=DENSE), case) for case in group if case.kind != DENSE]
        pairs += [(a, b, "pruning") for a, b in dense if a in cases]
    return pairs


def _row(group: list[Comparison]) -> dict[str, Any]:
    first, barriers = group[0], [c.barrier for c in group if c.barrier is not None]
    row: dict[str, Any] = {"kind": first.kind, "what": first.what, "step": first.step}
    row |= {"density": fmean(c.density for c in group), "n": len(group)}
    row |= _mean("distance", [c.distance for c in group])
    row |= _mean("angle", [c.angle for c in group])
    for part in barriers[0].values if barriers else ():
        row |= _mean(f"barrier_{part}", [b.heights[part] for b in barriers])
        row[f"end_{part}_mean"] = fmean(float(b.values[part][[0, -1]].mean()) for b in barriers)
        row[f"stable_{part}"] = row[f"barrier_{part}_mean"] < STABLE
    return row


def _mean(name: str, values: list[float]) -> dict[str, float]:
    spread = stdev(values) if len(values) > 1 else float("nan")
    return {f"{name}_mean": fmean(values), f"{name}_std": spread}
