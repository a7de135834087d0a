"""Other masks at random positions, with the ticket's counts."""

from typing import Literal, get_args

import numpy as np

from keras_lottery import masks as mask_ops
from keras_lottery.controls.variants import full_values, variant
from keras_lottery.masks import Array, Masks, Path
from keras_lottery.scopes import Scores, keep_best
from keras_lottery.tickets import Ticket

Counts = Literal["layerwise", "global", "even"]


def random_mask(
    ticket: Ticket, seed: int, dense: Ticket | None = None, counts: Counts = "layerwise"
) -> Ticket:
    """Random masks with as many alive weights as the ticket's.

    Args:
        ticket: The ticket.
        seed: Integer.
        dense: The dense ticket of the same search (round 0), which knows the initial
            values at the new positions. Without it the ticket's own values move to the new
            positions, since a ticket keeps only the values of its alive weights.
        counts: `"layerwise"` keeps the number of each layer, `"global"` only their sum;
            `"even"` keeps their sum too and gives each layer the same density, up to
            one weight.

    Raises:
        ValueError: If `counts` is unknown, or `dense` is pruned or of another search.

    Source: Frankle & Carbin, 1803.03635, figure 1.

    Example:

    >>> ticket = Ticket({"w": np.array([True, False, False])}, {"w": np.ones(3)})
    >>> int(random_mask(ticket, seed=0).masks["w"].sum())
    1
    """
    rng = np.random.default_rng(seed)
    scores = {p: rng.random(ticket.masks[p].shape) for p in sorted(ticket.masks)}
    masks = best_masks(ticket, scores, counts)
    values = _values_at(ticket, masks, dense, seed)
    about = {"name": "random_mask", "seed": seed, "counts": counts}
    return variant(ticket, about, values, masks)


def shuffle_mask(ticket: Ticket, seed: int, dense: Ticket | None = None) -> Ticket:
    """The ticket's masks with the positions inside each layer permuted.

    Args:
        ticket: The ticket.
        seed: Integer.
        dense: As in `random_mask`. Without it the weights are permuted with the masks.

    Raises:
        ValueError: If `dense` is pruned or of another search.

    Source: Frankle et al., 2009.08576.

    Example:

    >>> ticket = Ticket({"w": np.array([True, False, False])}, {"w": np.ones(3)})
    >>> int(shuffle_mask(ticket, seed=0).masks["w"].sum())
    1
    """
    orders = mask_ops.shuffle_orders(ticket.masks, seed)
    masks = mask_ops.shuffle(ticket.masks, seed)
    if dense is None:
        values = {p: mask_ops.reorder(ticket.weights[p], orders[p]) for p in masks}
    else:
        values = full_values(ticket, dense, "dense")
    return variant(ticket, {"name": "shuffle_mask", "seed": seed}, values, masks)


def best_masks(ticket: Ticket, scores: Scores, counts: Counts) -> Masks:
    """The best-scored weights of a dense network, as many as the ticket has.

    Args:
        ticket: The ticket.
        scores: Dict of path to float array of the weight's shape; higher stays.
        counts: `"layerwise"`, `"global"` or `"even"`, as in `random_mask`.

    Raises:
        ValueError: If `counts` is unknown.
    """
    if counts not in get_args(Counts):
        raise ValueError(f'`counts` must be "layerwise", "global" or "even". Received: {counts!r}')
    alive = {p: n for p, (n, _) in mask_ops.counts(ticket.masks).items()}
    full = mask_ops.full({p: m.shape for p, m in ticket.masks.items()})
    if counts == "global":
        return keep_best(scores, full, sum(alive.values()))
    if counts == "even":
        alive = _even({p: m.size for p, m in full.items()}, sum(alive.values()))
    return {p: keep_best({p: scores[p]}, {p: full[p]}, alive[p])[p] for p in full}


def _even(sizes: dict[Path, int], n: int) -> dict[Path, int]:
    """`n` in proportion to the sizes; what rounding leaves goes to the largest remainders."""
    total = max(1, sum(sizes.values()))
    shares = {p: n * size // total for p, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda p: (-(n * sizes[p] % total), p))
    for path in by_remainder[: n - sum(shares.values())]:
        shares[path] += 1
    return shares


def _values_at(ticket: Ticket, masks: Masks, dense: Ticket | None, seed: int) -> dict[Path, Array]:
    """Initial values for new masks: the dense ticket's, or the ticket's own, redealt."""
    if dense is not None:
        return full_values(ticket, dense, "dense")
    rng = np.random.default_rng((seed, 1))
    values = {}
    for path, mask in masks.items():
        own = ticket.weights[path][ticket.masks[path]]
        n = int(np.count_nonzero(mask))
        values[path] = np.zeros_like(ticket.weights[path])
        if own.size:
            values[path][mask] = rng.choice(own, n, replace=n > own.size)
    return values
