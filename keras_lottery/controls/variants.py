"""What the controls share: variants of a ticket, and the full values they are made from."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_lottery.masks import Array, Masks, Path
from keras_lottery.tickets import Ticket


def variant(
    ticket: Ticket,
    about: Mapping[str, Any],
    weights: Mapping[Path, Array],
    masks: Masks | None = None,
) -> Ticket:
    """The ticket with other values at the paths of `weights`, and perhaps other masks.

    `about` says which control it is and goes into the metadata.
    """
    return replace(
        ticket,
        masks=ticket.masks if masks is None else masks,
        weights={**ticket.weights, **weights},
        metadata={**ticket.metadata, "control": dict(about)},
    )


def full_values(ticket: Ticket, other: Ticket, name: str) -> dict[Path, Array]:
    """The values of all masked weights in `other`, a dense ticket of the same search.

    Raises:
        ValueError: If it is pruned or of other paths or shapes; calls it `name`.
    """
    expected = {p: m.shape for p, m in ticket.masks.items()}
    received = {p: m.shape for p, m in other.masks.items()}
    if expected != received:
        raise ValueError(
            f"`{name}` must be of the same search as the ticket, with masks of shapes {expected}. "
            f"Received one with masks of shapes {received}."
        )
    if any(not m.all() for m in other.masks.values()):
        raise ValueError(
            f"`{name}` must be a dense ticket (round 0) of the same search. Received one of "
            f"density {other.density:.2%}."
        )
    return {p: other.weights[p] for p in ticket.masks}


def of_survivors(
    ticket: Ticket, value: Callable[[Path, NDArray[np.floating]], NDArray[np.floating]]
) -> dict[Path, Array]:
    """`value(path, survivors)` in place of each layer's surviving values, given as float64.

    Paths go in their sorted order, so that draws do not depend on the order of the dicts.
    """
    changed = {}
    for path in sorted(ticket.masks):
        mask, changed[path] = ticket.masks[path], ticket.weights[path].copy()
        changed[path][mask] = value(path, ticket.weights[path][mask].astype(np.float64))
    return changed


def spread(values: Array) -> float:
    """The standard deviation of a layer's values, 0 for a layer without any."""
    return float(values.astype(np.float64).std()) if values.size else 0.0


def rescaled(ticket: Ticket, values: Mapping[Path, Array], rescale: bool) -> dict[Path, Array]:
    """Each masked layer's values times its size over its survivors, if `rescale`.

    Zhou et al. call it dynamic weight rescaling: the sum over a unit's inputs stays as
    large as if nothing were pruned.
    """
    scales = {p: m.size / max(1, int(np.count_nonzero(m))) for p, m in ticket.masks.items()}
    return {
        p: (v.astype(np.float64) * scales[p]).astype(v.dtype) if rescale and p in scales else v
        for p, v in values.items()
    }
