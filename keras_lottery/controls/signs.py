"""Other values under the ticket's masks, told apart by what happens to the signs.

Zhou et al. find that the signs of the survivors matter and their magnitudes hardly do.
"""

import numpy as np

from keras_lottery.controls.drawing import Model, drawn
from keras_lottery.controls.variants import full_values, of_survivors, rescaled, spread, variant
from keras_lottery.tickets import Ticket


def keep_signs(ticket: Ticket, model: Model, seed: int, rescale: bool = False) -> Ticket:
    """New magnitudes from the initializers, with the signs of the ticket's values.

    Zhou et al.'s "signed_reinit". Only masked weights are drawn again; biases and other
    weights without a mask keep the ticket's values. A survivor of value 0 stays 0.

    Args:
        ticket: A ticket of `model`'s architecture.
        model: The model, or a function that builds it, as in `reinitialize`.
        seed: Integer; the magnitudes are those of `reinitialize` with the same seed.
        rescale: Whether each masked layer's values are multiplied by its size over its
            survivors (the authors' "rescaling").

    Raises:
        ValueError: If a weight has no known initializer, or the architecture differs.

    Source: Zhou et al., 1905.01067, section 4 (mask-1 actions).

    Example:

    >>> import keras
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> kernel = model.layers[0].kernel.path
    >>> model.set_weights([np.array([[-1.0], [2.0]]), np.zeros(1)])
    >>> ticket = Ticket.of(model, {kernel: np.array([[True], [False]])})
    >>> np.sign(keep_signs(ticket, model, seed=1).weights[kernel]).ravel().tolist()
    [-1.0, 0.0]
    """
    fresh = drawn(ticket, model, seed)
    values = of_survivors(
        ticket, lambda path, own: np.abs(fresh[path][ticket.masks[path]]) * np.sign(own)
    )
    about = {"name": "keep_signs", "seed": seed, "rescale": rescale}
    return variant(ticket, about, rescaled(ticket, values, rescale))


def signed_reshuffle(ticket: Ticket, seed: int) -> Ticket:
    """Each masked layer's surviving magnitudes permuted, while the signs stay in place.

    Weights without a mask keep their values. A survivor of value 0 stays 0.

    Args:
        ticket: The ticket.
        seed: Integer.

    Source: Zhou et al., 1905.01067, section 4 (mask-1 actions).

    Example:

    >>> ticket = Ticket({"w": np.ones(3, bool)}, {"w": np.array([1.0, -2.0, 3.0])})
    >>> np.sign(signed_reshuffle(ticket, seed=0).weights["w"]).tolist()
    [1.0, -1.0, 1.0]
    """
    rng = np.random.default_rng(seed)
    values = of_survivors(ticket, lambda path, own: rng.permutation(np.abs(own)) * np.sign(own))
    return variant(ticket, {"name": "signed_reshuffle", "seed": seed}, values)


def signed_constant(ticket: Ticket, dense: Ticket, rescale: bool = False) -> Ticket:
    """Each survivor's sign times one constant of its layer.

    The constant is the standard deviation of all the layer's initial values. Weights
    without a mask keep their values. A survivor of value 0 stays 0.

    Args:
        ticket: The ticket.
        dense: The dense ticket of the same search (round 0), which knows all initial
            values.
        rescale: As in `keep_signs`.

    Raises:
        ValueError: If `dense` is pruned or of another search.

    Source: Zhou et al., 1905.01067, section 4 (mask-1 actions).

    Example:

    >>> dense = Ticket({"w": np.ones(4, bool)}, {"w": np.array([-3.0, -1.0, 1.0, 3.0])})
    >>> ticket = Ticket({"w": np.array([True, False, False, True])}, dense.weights)
    >>> signed_constant(ticket, dense).weights["w"].round(3).tolist()
    [-2.236, 0.0, 0.0, 2.236]
    """
    sigma = {p: spread(v) for p, v in full_values(ticket, dense, "dense").items()}
    values = of_survivors(ticket, lambda path, own: sigma[path] * np.sign(own))
    about = {"name": "signed_constant", "rescale": rescale}
    return variant(ticket, about, rescaled(ticket, values, rescale))


def random_signed_constant(
    ticket: Ticket, seed: int, dense: Ticket, rescale: bool = False
) -> Ticket:
    """One constant a layer as in `signed_constant`, with signs from random positions.

    The signs are those of all the layer's initial values, permuted over its positions as
    in the authors' code, so that they are drawn in the proportion of the layer.

    Args:
        ticket: The ticket.
        seed: Integer.
        dense: As in `signed_constant`.
        rescale: As in `keep_signs`.

    Raises:
        ValueError: If `dense` is pruned or of another search.

    Source: Zhou et al., 1905.01067, section 4 (mask-1 actions).

    Example:

    >>> dense = Ticket({"w": np.ones(4, bool)}, {"w": np.array([-1.0, -1.0, 1.0, 1.0])})
    >>> sorted(random_signed_constant(dense, 0, dense).weights["w"].tolist())
    [-1.0, -1.0, 1.0, 1.0]
    """
    full = full_values(ticket, dense, "dense")
    rng = np.random.default_rng(seed)
    values = of_survivors(
        ticket,
        lambda path, own: (
            spread(full[path])
            * np.sign(rng.permutation(full[path].ravel()))[ticket.masks[path].ravel()]
        ),
    )
    about = {"name": "random_signed_constant", "seed": seed, "rescale": rescale}
    return variant(ticket, about, rescaled(ticket, values, rescale))
