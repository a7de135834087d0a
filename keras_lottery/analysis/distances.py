"""How far apart two trained networks are: L2 distance and angle over the alive weights."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from keras_lottery.masks import Array, Masks, Path
from keras_lottery.tickets import Ticket

Pair = tuple[NDArray[np.float64], NDArray[np.float64]]


def distance(
    a: Mapping[Path, Array] | Ticket, b: Mapping[Path, Array] | Ticket, masks: Masks | None = None
) -> float:
    """L2 distance of two networks over the alive weights: `||m * a - m * b||`.

    Args:
        a: Dict of path to array, as `weights.read` gives, or a ticket.
        b: The same of the other network.
        masks: Dict of path to bool array, True = alive; only these paths and positions
            count. Default: all paths that `a` and `b` share, whole.

    Returns:
        Float, at least 0.

    Raises:
        ValueError: If a path is missing, shapes differ, a value is NaN or Inf, or nothing
            is left to compare.

    Source: Stabilizing the Lottery Ticket Hypothesis, 1903.01611, section 4.

    Example:

    >>> a, b = {"w": np.array([3.0, 0.0, 7.0])}, {"w": np.array([0.0, 4.0, 1.0])}
    >>> distance(a, b, {"w": np.array([True, True, False])})
    5.0
    """
    return _norm(x - y for x, y in _pairs(a, b, masks))


def angle(
    a: Mapping[Path, Array] | Ticket, b: Mapping[Path, Array] | Ticket, masks: Masks | None = None
) -> float:
    """Angle between two networks, taken as vectors of their alive weights.

    Args:
        a: Dict of path to array, as `weights.read` gives, or a ticket.
        b: The same of the other network.
        masks: As in `distance`.

    Returns:
        Float in degrees, in [0, 180]; exactly 0 for equal weights.

    Raises:
        ValueError: As `distance`, and if all alive weights of a network are 0.

    Source: Stabilizing the Lottery Ticket Hypothesis, 1903.01611, appendix B.

    Example:

    >>> angle({"w": np.array([1.0, 0.0])}, {"w": np.array([0.0, 2.0])})
    90.0
    """
    of_a = _norm(x for x, _ in _pairs(a, b, masks))
    of_b = _norm(y for _, y in _pairs(a, b, masks))
    if not (of_a and of_b):
        zero = "first" if not of_a else "second"
        raise ValueError(
            f"Every alive weight of the {zero} network is 0: a zero vector has no angle."
        )
    # Near 0 and 180 degrees the arc cosine would lose half of the digits.
    apart = _norm(x / of_a - y / of_b for x, y in _pairs(a, b, masks))
    along = _norm(x / of_a + y / of_b for x, y in _pairs(a, b, masks))
    return math.degrees(2 * math.atan2(apart, along))


def _norm(vectors: Iterator[NDArray[np.float64]]) -> float:
    return math.hypot(*(float(np.linalg.norm(v)) for v in vectors))


def _pairs(
    a: Mapping[Path, Array] | Ticket, b: Mapping[Path, Array] | Ticket, masks: Masks | None
) -> Iterator[Pair]:
    """The alive weights of both, path by path, so that no copy of a network is made."""
    first, second = _values(a), _values(b)
    paths = [p for p in first if p in second] if masks is None else list(masks)
    size = 0
    for path in paths:
        mask = None if masks is None else masks[path]
        pair = _alive(first, path, mask, "first"), _alive(second, path, mask, "second")
        if pair[0].shape != pair[1].shape:
            raise ValueError(
                f"Expected two networks of one architecture. Received for {path!r}: shapes "
                f"{first[path].shape} and {second[path].shape}"
            )
        size += pair[0].size
        yield pair
    if not size:
        raise ValueError(
            "There is nothing to compare: the networks share no path, or the masks leave nothing "
            f"alive. Received: paths {list(first)[:3]} and {list(second)[:3]}"
        )


def _values(given: Mapping[Path, Array] | Ticket) -> Mapping[Path, Array]:
    return given.weights if isinstance(given, Ticket) else given


def _alive(
    values: Mapping[Path, Array], path: Path, mask: NDArray[np.bool_] | None, which: str
) -> NDArray[np.float64]:
    if path not in values:
        raise ValueError(
            f"The {which} network has no weight {path!r}, for which there is a mask. Its weights: "
            f"{list(values)}"
        )
    value = np.asarray(values[path])
    if mask is not None and mask.shape != value.shape:
        raise ValueError(
            f"Expected a mask of shape {value.shape} for {path!r}. Received: {mask.shape}"
        )
    chosen = np.asarray(value if mask is None else value[mask], np.float64)
    if not np.isfinite(chosen).all():
        raise ValueError(f"NaN or Inf in the weights {path!r} of the {which} network.")
    return chosen
