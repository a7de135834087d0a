"""Where a ticket's weights begin and where training takes them: values, movement, signs."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keras_lottery import masks as mask_ops
from keras_lottery.analysis.pairing import Values, masks_of, values_at
from keras_lottery.controls.variants import variant
from keras_lottery.masks import Masks, Path
from keras_lottery.tickets import Ticket


@dataclass(frozen=True)
class InitialValues:
    """A histogram of one layer's values at the rewind point.

    Args:
        edges: Float array of shape (bins + 1,): the ends of the bins, symmetric about 0.
        alive: Int array of shape (bins,): how many survivors begin in each bin.
        all: Int array of shape (bins,): how many of all the layer's weights do.
    """

    edges: NDArray[np.float64]
    alive: NDArray[np.intp]
    all: NDArray[np.intp]


@dataclass(frozen=True)
class Movement:
    """How one layer's alive and pruned weights moved; NaN where there are none.

    Args:
        path: The weight's path.
        moved_alive: Mean of `|after - before|` over the alive weights.
        moved_pruned: The same over the pruned weights.
        away_alive: Share in [0, 1] of the alive weights whose magnitude grew.
        away_pruned: The same of the pruned weights.
        flips_alive: Share in [0, 1] of the alive weights whose sign changed.
        flips_pruned: The same of the pruned weights.
    """

    path: Path
    moved_alive: float
    moved_pruned: float
    away_alive: float
    away_pruned: float
    flips_alive: float
    flips_pruned: float


@dataclass(frozen=True)
class SignFlips:
    """Sign flips along a trajectory of n sets of weights.

    Args:
        from_previous: Float array of shape (n - 1,): share in [0, 1] of the alive weights
            whose sign is not that of the set before.
        from_first: Float array of shape (n - 1,): the same against the first set.
    """

    from_previous: NDArray[np.float64]
    from_first: NDArray[np.float64]


def initial_values(
    ticket: Ticket, dense: Ticket | Values, bins: int = 50
) -> dict[Path, InitialValues]:
    """Which initial values survive: the survivors' values against those of all weights.

    Args:
        ticket: The ticket, with the values of its survivors at the rewind point.
        dense: The dense ticket of the same search (round 0), or all its weights at the
            rewind point by path.
        bins: Number of bins, at least 1, the same for both histograms of a layer.

    Returns:
        Dict of path to histograms, for each masked weight.

    Raises:
        ValueError: If `dense` lacks a path, has another shape or is pruned, or a value is
            not finite, or `bins` is below 1.

    Source: Frankle & Carbin, 1803.03635, appendix F (initial weights of winning tickets).

    Example:

    >>> dense = Ticket({"w": np.ones(4, bool)}, {"w": np.array([-2.0, -0.5, 0.5, 2.0])})
    >>> ticket = Ticket({"w": np.array([True, False, False, True])}, dense.weights)
    >>> found = initial_values(ticket, dense, bins=4)["w"]
    >>> found.edges.tolist(), found.alive.tolist(), found.all.tolist()
    ([-2.0, -1.0, 0.0, 1.0, 2.0], [1, 0, 0, 1], [1, 1, 1, 1])
    """
    if bins < 1:
        raise ValueError(f"`bins` must be 1 or more. Received: {bins!r}")
    if isinstance(dense, Ticket) and not all(m.all() for m in dense.masks.values()):
        raise ValueError(
            "`dense` must be the dense ticket (round 0) of the same search, which knows the values "
            f"of all weights. Received one of density {dense.density:.2%}."
        )
    masks = masks_of(ticket, "ticket")
    own, every = values_at(masks, ticket, "ticket"), values_at(masks, dense, "dense")
    return {p: _histograms(own[p][mask], every[p], bins) for p, mask in masks.items()}


def _histograms(alive: NDArray[np.float64], every: NDArray[np.float64], bins: int) -> InitialValues:
    reach = max(np.abs(alive).max(initial=0.0), np.abs(every).max(initial=0.0))
    edges = np.linspace(-reach, reach, bins + 1) if reach else np.linspace(-0.5, 0.5, bins + 1)
    return InitialValues(edges, np.histogram(alive, edges)[0], np.histogram(every, edges)[0])


def movement(
    before: Values | Ticket, after: Values | Ticket, masks: Masks | Ticket
) -> list[Movement]:
    """How far training moves the weights that a ticket keeps, and those that it prunes.

    Give the weights before and after one training of the dense network and the masks of a
    later round to see what pruning chose from. A weight at exactly 0 has no sign: leaving
    or reaching 0 is no flip.

    Args:
        before: Dict of path to array, the weights at first; or a ticket.
        after: Dict of path to array, the weights then; or a ticket.
        masks: Dict of path to bool array, True = alive; or a ticket.

    Returns:
        One for each masked weight, in the masks' order.

    Raises:
        ValueError: If a path is missing, shapes differ, or a value is not finite.

    Source: Frankle & Carbin, 1803.03635, appendix F (winning tickets move further).

    Example:

    >>> before, after = {"w": np.array([1.0, -1.0, 0.5])}, {"w": np.array([3.0, 1.0, 0.25])}
    >>> movement(before, after, {"w": np.array([True, True, False])})[0].moved_alive
    2.0
    """
    found = masks_of(masks)
    first, last = values_at(found, before, "before"), values_at(found, after, "after")
    return [_moved(path, first[path], last[path], mask) for path, mask in found.items()]


def _moved(
    path: Path,
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    mask: NDArray[np.bool_],
) -> Movement:
    moved = np.abs(after - before)
    away = np.abs(after) > np.abs(before)
    flips = np.sign(before) * np.sign(after) < 0
    pairs = [(_mean(v[mask]), _mean(v[~mask])) for v in (moved, away, flips)]
    return Movement(path, *(value for both in pairs for value in both))


def _mean(values: NDArray[np.generic]) -> float:
    return float(values.astype(np.float64).mean()) if values.size else math.nan


def sign_flips(trajectory: Iterable[Values | Ticket], masks: Masks | Ticket) -> SignFlips:
    """How many alive weights change their sign, step by step and since the start.

    Args:
        trajectory: Two or more sets of weights, as dicts of path to array or tickets, in
            the order of training. They are read one after the other, so that a generator
            needs no more memory than one of them and two sets of signs.
        masks: Dict of path to bool array, True = alive; or a ticket.

    Returns:
        The shares over all alive weights. A weight at exactly 0 has no sign: leaving or
        reaching 0 is no flip.

    Raises:
        ValueError: If there are fewer than two sets or no alive weight, a path is
            missing, shapes differ, or a value is not finite.

    Source: Gadhikar & Burkholz, "Masks, Signs, and Learning Rate Rewinding", 2402.19262.

    Example:

    >>> points = [{"w": np.array(v)} for v in ([1.0, 1.0], [1.0, -1.0], [1.0, 1.0])]
    >>> found = sign_flips(points, {"w": np.array([True, True])})
    >>> found.from_previous.tolist(), found.from_first.tolist()
    ([0.5, 0.5], [0.5, 0.0])
    """
    found = masks_of(masks)
    if not any(m.any() for m in found.values()):
        raise ValueError("`masks` must leave a weight alive. Received: all are pruned.")
    shares: list[tuple[float, float]] = []
    first, previous = None, None
    for i, point in enumerate(trajectory):
        now = _signs(found, point, f"trajectory[{i}]")
        if first is None or previous is None:
            first = now
        else:
            shares.append((_mean(now * previous < 0), _mean(now * first < 0)))
        previous = now
    if not shares:
        raise ValueError(
            "`trajectory` must hold two sets of weights or more. Received: "
            f"{0 if first is None else 1}."
        )
    return SignFlips(*np.array(shares, np.float64).T)


def _signs(masks: Masks, point: Values | Ticket, name: str) -> NDArray[np.int8]:
    """The signs of the alive weights in a row."""
    values = values_at(masks, point, name)
    return np.concatenate([np.sign(values[p][m]).astype(np.int8) for p, m in masks.items()])


def flip_signs(ticket: Ticket, fraction: float, seed: int) -> Ticket:
    """A ticket with the signs of some alive weights turned, to test how robust it is.

    Exactly `round(fraction * alive)` positions are drawn, uniformly over the alive weights
    of all layers. Magnitudes, masks and unmasked weights stay; a 0 stays 0.

    Args:
        ticket: The ticket.
        fraction: Share of the alive weights, in [0, 1].
        seed: Integer.

    Raises:
        ValueError: If `fraction` is outside [0, 1].

    Source: Gadhikar & Burkholz, "Masks, Signs, and Learning Rate Rewinding", 2402.19262.

    Example:

    >>> ticket = Ticket({"w": np.array([True, True, False])}, {"w": np.array([1.0, 1.0, 0.0])})
    >>> sorted(flip_signs(ticket, 0.5, seed=0).weights["w"].tolist())
    [-1.0, 0.0, 1.0]
    """
    if not 0 <= fraction <= 1:
        raise ValueError(
            f"`fraction` must be a share of the alive weights in [0, 1]. Received: {fraction!r}"
        )
    alive = {p: n for p, (n, _) in sorted(mask_ops.counts(ticket.masks).items())}
    total = sum(alive.values())
    factors = np.ones(total, np.int8)
    chosen = np.random.default_rng(seed).choice(total, round(fraction * total), replace=False)
    factors[chosen] = -1
    parts = np.split(factors, np.cumsum(list(alive.values()))[:-1])
    values = {path: ticket.weights[path].copy() for path in alive}
    for path, part in zip(alive, parts, strict=True):
        own = values[path][ticket.masks[path]]
        values[path][ticket.masks[path]] = np.where(part < 0, np.negative(own), own)
    about = {"name": "flip_signs", "fraction": fraction, "seed": seed}
    return variant(ticket, about, values)
