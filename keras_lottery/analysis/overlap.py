"""Whether tickets are alike: what two masks have in common, against what chance gives."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from keras_lottery.analysis.pairing import pair
from keras_lottery.masks import Masks, Path
from keras_lottery.tickets import Ticket


@dataclass(frozen=True)
class Overlap:
    """What two masks have in common.

    Args:
        both: Number of weights alive in both masks.
        either: Number of weights alive in at least one of them.
        jaccard: `both / either`, in [0, 1]; 1.0 if nothing is alive in either.
        expected: Mean of `both` over independent random masks with the same number of
            alive weights at each path.
        deviation: Standard deviation of `both` over such masks.
        z: `(both - expected) / deviation`; 0.0 if chance leaves no choice.
        layers: Dict of path to the overlap of that weight alone; empty in such a one.
    """

    both: int
    either: int
    jaccard: float
    expected: float
    deviation: float
    z: float
    layers: dict[Path, "Overlap"] = field(default_factory=dict)

    @property
    def expected_jaccard(self) -> float:
        """The Jaccard overlap at `expected` common weights, in [0, 1]."""
        return _share(self.expected, self.both + self.either - self.expected)


@dataclass(frozen=True)
class OverlapMatrix:
    """The overlaps of each ticket with each other, in the order of `names`.

    Args:
        names: The n names of the tickets.
        jaccard: Float array of shape (n, n), in [0, 1], 1 on the diagonal.
        z: Float array of shape (n, n), in standard deviations of chance.
        expected_jaccard: Float array of shape (n, n): what chance gives for `jaccard`.
    """

    names: list[str]
    jaccard: NDArray[np.float64]
    z: NDArray[np.float64]
    expected_jaccard: NDArray[np.float64]


def mask_overlap(a: Masks | Ticket, b: Masks | Ticket) -> Overlap:
    """Compares two masks with each other, and with random masks of the same counts.

    The number of common weights of two independent random masks with given counts is
    hypergeometric at each path, and a sum over the paths: the expectation is
    `sum(n_a * n_b / N)`, the variance
    `sum(n_a * n_b * (N - n_a) * (N - n_b) / (N**2 * (N - 1)))`, where `n_a` and `n_b` of a
    path's N weights are alive.

    Args:
        a: Dict of path to bool array, True = alive; or a ticket.
        b: The same of another ticket. Weights are matched by path, else (models built at
            different times have other names) in order, if all shapes agree.

    Returns:
        The overlap of all weights, with that of each path in `layers`.

    Raises:
        ValueError: If they belong to different architectures, or are no bool arrays.

    Source: the hypergeometric distribution, as two masks of fixed counts follow it.

    Example:

    >>> a, b = np.array([True, True, False, False]), np.array([True, False, True, False])
    >>> found = mask_overlap({"w": a}, {"w": b})
    >>> found.both, found.either, found.expected, found.z
    (1, 3, 1.0, 0.0)
    """
    return _overlap(a, b, ("a", "b"))


def overlap_matrix(tickets: Mapping[str, Masks | Ticket]) -> OverlapMatrix:
    """Compares every ticket with every other.

    Args:
        tickets: Dict of name to masks or ticket, all of one architecture.

    Returns:
        The matrices; each element is that of `mask_overlap`.

    Raises:
        ValueError: If there is no ticket, or two belong to different architectures.

    Example:

    >>> a, b = np.array([True, True, False, False]), np.array([True, False, True, False])
    >>> overlap_matrix({"a": {"w": a}, "b": {"w": b}}).jaccard.round(2).tolist()
    [[1.0, 0.33], [0.33, 1.0]]
    """
    if not tickets:
        raise ValueError("Expected at least one ticket to compare. Received: none.")
    names = list(tickets)
    matrix = np.zeros((3, len(names), len(names)))
    for (i, first), (j, second) in itertools.combinations_with_replacement(enumerate(names), 2):
        found = _overlap(tickets[first], tickets[second], (first, second))
        for kind, value in enumerate((found.jaccard, found.z, found.expected_jaccard)):
            matrix[kind, i, j] = matrix[kind, j, i] = value
    return OverlapMatrix(names, *matrix)


def _overlap(a: Masks | Ticket, b: Masks | Ticket, names: tuple[str, str]) -> Overlap:
    layers, variances = {}, []
    for path, first, second in pair(a, b, names):
        both = int(np.count_nonzero(first & second))
        n_a, n_b = int(np.count_nonzero(first)), int(np.count_nonzero(second))
        expected, variance = _chance(n_a, n_b, first.size)
        layers[path] = _judged(both, n_a + n_b - both, expected, variance)
        variances.append(variance)
    parts = layers.values()
    return _judged(
        sum(o.both for o in parts),
        sum(o.either for o in parts),
        math.fsum(o.expected for o in parts),
        math.fsum(variances),
        layers,
    )


def _chance(n_a: int, n_b: int, size: int) -> tuple[float, float]:
    """Mean and variance of the hypergeometric number of common weights."""
    if size < 2:
        return float(n_a * n_b), 0.0
    fixed = size**2 * (size - 1)
    return n_a * n_b / size, n_a * n_b * (size - n_a) * (size - n_b) / fixed


def _judged(
    both: int,
    either: int,
    expected: float,
    variance: float,
    layers: dict[Path, Overlap] | None = None,
) -> Overlap:
    deviation = math.sqrt(variance)
    z = (both - expected) / deviation if deviation else 0.0
    return Overlap(both, either, _share(both, either), expected, deviation, z, layers or {})


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 1.0
