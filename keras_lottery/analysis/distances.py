"""How far apart two trained networks are: L2 distance and angle over the alive weights."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_lottery.analysis.pairing import masks_of
from keras_lottery.masks import Array, Masks, Path
from keras_lottery.tickets import Ticket

Values = Mapping[Path, Array]
Pair = tuple[NDArray[np.float64], NDArray[np.float64]]

_OTHER_NAMES = (
    "Networks of one architecture whose paths differ: `kl.analysis.as_values(model, given)` "
    "gives both the paths of one model."
)


def distance(a: Values | Ticket, b: Values | Ticket, masks: Masks | Ticket | None = None) -> float:
    """L2 distance of two networks over the alive weights: `||m * a - m * b||`.

    Args:
        a: Dict of path to array, or a ticket. `kl.analysis.as_values(model, given)` makes
            the dict of a model, of a list from `get_weights()`, and of other paths' arrays.
        b: The same of the other network.
        masks: Dict of path to bool array, True = alive, or a ticket; only these paths and
            positions count. Default: the masks of `a` if it is a ticket, else those of `b`;
            with two dicts all paths that both have, whole.

    Returns:
        Float, at least 0.

    Raises:
        ValueError: If a path is missing, shapes differ, a mask is not of bools, a value is
            NaN or Inf, or nothing is left to compare.
        TypeError: If `a` or `b` is neither a dict nor a ticket.

    Source: Stabilizing the Lottery Ticket Hypothesis, 1903.01611, section 4.

    Example:

    >>> a, b = {"w": np.array([3.0, 0.0, 7.0])}, {"w": np.array([0.0, 4.0, 1.0])}
    >>> distance(a, b, {"w": np.array([True, True, False])})
    5.0
    """
    return _norm(x - y for x, y in _pairs(a, b, masks))


def angle(a: Values | Ticket, b: Values | Ticket, masks: Masks | Ticket | None = None) -> float:
    """Angle between two networks, taken as vectors of their alive weights.

    Args:
        a: Dict of path to array, or a ticket, as in `distance`.
        b: The same of the other network.
        masks: As in `distance`.

    Returns:
        Float in degrees, in [0, 180]; exactly 0 for equal weights.

    Raises:
        ValueError: As `distance`, and if all alive weights of a network are 0.
        TypeError: As `distance`.

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


def _pairs(a: Values | Ticket, b: Values | Ticket, masks: Masks | Ticket | None) -> Iterator[Pair]:
    """The alive weights of both, path by path, so that no copy of a network is made."""
    first, second = _values(a, "a"), _values(b, "b")
    if masks is None:
        masks = next((given for given in (a, b) if isinstance(given, Ticket)), None)
    known = None if masks is None else masks_of(masks)
    paths = [p for p in first if p in second] if known is None else list(known)
    size = 0
    for path in paths:
        mask = None if known is None else known[path]
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
            f"alive. Received: paths {list(first)[:3]} and {list(second)[:3]}. {_OTHER_NAMES}"
        )


def _values(given: Any, name: str) -> Values:
    values = given.weights if isinstance(given, Ticket) else given
    if not isinstance(values, Mapping):
        raise TypeError(
            f"`{name}` must be a dict of path to array or a ticket. Received: "
            f"{type(given).__name__}. `kl.analysis.as_values(model, given)` makes the dict of a "
            "model or of a list of arrays."
        )
    return values


def _alive(
    values: Mapping[Path, Array], path: Path, mask: NDArray[np.bool_] | None, which: str
) -> NDArray[np.float64]:
    if path not in values:
        raise ValueError(
            f"The {which} network has no weight {path!r}, for which there is a mask. Its weights: "
            f"{list(values)}. {_OTHER_NAMES}"
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
