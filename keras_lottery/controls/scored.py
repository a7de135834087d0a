"""Other masks by the magnitude of dense weights, with the ticket's counts.

Of equal magnitudes the earlier position survives, as in the scopes.
"""

import numpy as np
from numpy.typing import NDArray

from keras_lottery.controls.positions import Counts, best_masks
from keras_lottery.controls.variants import full_values, variant
from keras_lottery.masks import Path
from keras_lottery.tickets import Ticket


def invert_scores(ticket: Ticket, dense: Ticket, trained: Ticket) -> Ticket:
    """Keeps the weights that magnitude pruning throws away first.

    In each masked layer as many weights as the ticket has, of the smallest trained
    magnitude, at their initial values. Weights without a mask keep the ticket's values.

    Args:
        ticket: The ticket.
        dense: The dense ticket of the same search (round 0), which knows all initial
            values.
        trained: The ticket of round 0 with the trained weights in their place:
            `Ticket.of(model, dense.masks)` after the dense network's training.

    Raises:
        ValueError: If `dense` or `trained` is pruned or of another search, or a trained
            weight is NaN or Inf.

    Source: Zhou et al., 1905.01067, section 2 (small_final, there in rounds).

    Example:

    >>> dense = Ticket({"w": np.ones(3, bool)}, {"w": np.array([1.0, 2.0, 3.0])})
    >>> trained = Ticket(dense.masks, {"w": np.array([0.5, -9.0, 4.0])})
    >>> ticket = Ticket({"w": np.array([False, True, False])}, dense.weights)
    >>> invert_scores(ticket, dense, trained).weights["w"].tolist()
    [1.0, 0.0, 0.0]
    """
    scores = {p: -size for p, size in _magnitudes(ticket, trained, "trained").items()}
    masks = best_masks(ticket, scores, "layerwise")
    return variant(ticket, {"name": "invert_scores"}, full_values(ticket, dense, "dense"), masks)


def one_shot(
    ticket: Ticket, dense: Ticket, trained: Ticket, counts: Counts = "layerwise"
) -> Ticket:
    """The ticket of one pruning of the trained dense network, at the ticket's counts.

    Keeps the weights of the largest trained magnitude, at their initial values. Weights
    without a mask keep the ticket's values.

    Args:
        ticket: The ticket, as a rule of several rounds.
        dense: As in `invert_scores`.
        trained: As in `invert_scores`.
        counts: `"layerwise"`, `"global"` or `"even"`, as in `random_mask`.

    Raises:
        ValueError: If `counts` is unknown, `dense` or `trained` is pruned or of another
            search, or a trained weight is NaN or Inf.

    Source: Frankle & Carbin, 1803.03635, section 2 (one-shot pruning).

    Example:

    >>> dense = Ticket({"w": np.ones(3, bool)}, {"w": np.array([1.0, 2.0, 3.0])})
    >>> trained = Ticket(dense.masks, {"w": np.array([0.5, -9.0, 4.0])})
    >>> ticket = Ticket({"w": np.array([True, False, False])}, dense.weights)
    >>> one_shot(ticket, dense, trained).weights["w"].tolist()
    [0.0, 2.0, 0.0]
    """
    masks = best_masks(ticket, _magnitudes(ticket, trained, "trained"), counts)
    values = full_values(ticket, dense, "dense")
    return variant(ticket, {"name": "one_shot", "counts": counts}, values, masks)


def prune_at_init_magnitude(ticket: Ticket, dense: Ticket, counts: Counts = "layerwise") -> Ticket:
    """Keeps the weights of the largest initial magnitude: pruning before any training.

    Args:
        ticket: The ticket.
        dense: As in `invert_scores`.
        counts: `"layerwise"`, `"global"` or `"even"`, as in `random_mask`.

    Raises:
        ValueError: If `counts` is unknown, or `dense` is pruned or of another search.

    Source: Frankle & Carbin, 1803.03635, appendix F.4.

    Example:

    >>> dense = Ticket({"w": np.ones(3, bool)}, {"w": np.array([1.0, 2.0, -3.0])})
    >>> ticket = Ticket({"w": np.array([True, False, False])}, dense.weights)
    >>> prune_at_init_magnitude(ticket, dense).weights["w"].tolist()
    [0.0, 0.0, -3.0]
    """
    masks = best_masks(ticket, _magnitudes(ticket, dense, "dense"), counts)
    values = full_values(ticket, dense, "dense")
    return variant(ticket, {"name": "prune_at_init_magnitude", "counts": counts}, values, masks)


def _magnitudes(ticket: Ticket, full: Ticket, name: str) -> dict[Path, NDArray[np.floating]]:
    """|value| of every masked weight in the dense ticket `full`, in float32 at least."""
    values = full_values(ticket, full, name)
    return {p: np.abs(v.astype(np.result_type(v.dtype, np.float32))) for p, v in values.items()}
