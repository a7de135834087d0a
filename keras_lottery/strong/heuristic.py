"""Heuristic supermasks: the mask of a training, on weights that were never trained."""

from keras_lottery import controls, criteria, scopes
from keras_lottery.schedules import keep_density
from keras_lottery.strong.rules import check_density
from keras_lottery.tickets import Ticket


def heuristic_supermask(
    dense: Ticket,
    trained: Ticket,
    density: float = 0.2,
    criterion: str | criteria.Criterion = "magnitude_same_sign",
    signed_constant: bool = True,
) -> Ticket:
    """A ticket that is better than chance without any weight trained.

    Of each weight those stay that are large after training and kept their sign. Apply the
    ticket to a model and evaluate it as it is.

    Args:
        dense: The ticket of the untrained network, everything alive (round 0 of a search).
        trained: The same network's trained weights:
            `Ticket.of(model, dense.masks)` after its training.
        density: Float in (0, 1]: the fraction left alive, of each weight.
        criterion: A name in `kl.criteria` or a callable `State -> scores`. The default is
            the paper's large_final_same_sign.
        signed_constant: Whether each survivor holds its sign times the layer's standard
            deviation in the place of its initial value.

    Returns:
        A `kl.Ticket` on the untrained weights.

    Raises:
        ValueError: For a density out of range or an unknown criterion, or if a ticket is
            pruned or the two differ in their weights.

    Source: Zhou et al., 1905.01067, section 4.

    Example:

    >>> import numpy as np
    >>> dense = Ticket({"w": np.ones(4, bool)}, {"w": np.array([1.0, -1.0, 1.0, -1.0])})
    >>> trained = Ticket(dense.masks, {"w": np.array([3.0, 5.0, 2.0, -2.5])})
    >>> heuristic_supermask(dense, trained, 0.5).weights["w"].tolist()
    [1.0, 0.0, 0.0, -1.0]
    """
    check_density(density)
    score = criteria.resolve(criterion)
    _check_pair(dense, trained)
    scores = score(criteria.State(trained.weights, dense.weights, dense.masks))
    masks = scopes.Layerwise()(scores, dense.masks, keep_density(density))
    about = {"strong": {"method": "heuristic_supermask", "density": density}}
    found = Ticket(masks, dense.weights, about)
    return controls.signed_constant(found, dense) if signed_constant else found


def _check_pair(dense: Ticket, trained: Ticket) -> None:
    for name, given in (("dense", dense), ("trained", trained)):
        if given.density < 1:
            raise ValueError(
                f"`{name}` must be a ticket with every weight alive. Received one of density "
                f"{given.density:.3g}."
            )
    shapes = [{p: v.shape for p, v in t.weights.items()} for t in (dense, trained)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "`dense` and `trained` must be tickets of one network. Received weights "
            f"{shapes[0]} and {shapes[1]}."
        )
