"""Other values under the ticket's masks: drawn anew, resampled, or with noise."""

import numpy as np

from keras_lottery.controls.drawing import Model, drawn
from keras_lottery.controls.variants import full_values, of_survivors, rescaled, spread, variant
from keras_lottery.tickets import Ticket


def reinitialize(ticket: Ticket, model: Model, seed: int, rescale: bool = False) -> Ticket:
    """The ticket's masks over a new random initialization, the papers' main control.

    Args:
        ticket: A ticket of `model`'s architecture.
        model: The built model, whose initializers are drawn from again; it is not
            changed; non-trainable weights without an initializer keep their values. For
            layers that keep no initializer (`kernel_initializer` for `kernel`, and so on),
            a function that builds a new model: then Keras is seeded with `seed` and its
            fresh weights are taken.
        seed: Integer.
        rescale: Whether each masked layer's values are multiplied by its size over its
            survivors (Zhou et al.'s "rescaling").

    Raises:
        ValueError: If a weight has no known initializer, or the architecture differs.

    Source: Frankle & Carbin, 1803.03635, section 2.

    Example:

    >>> import keras
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> kernel = model.layers[0].kernel.path
    >>> ticket = Ticket.of(model, {kernel: np.array([[True], [False]])})
    >>> again = reinitialize(ticket, model, seed=1)
    >>> again.density, bool(again.weights[kernel][0] == ticket.weights[kernel][0])
    (0.5, False)
    """
    about = {"name": "reinitialize", "seed": seed, "rescale": rescale}
    return variant(ticket, about, rescaled(ticket, drawn(ticket, model, seed), rescale))


def resample_survivors(ticket: Ticket, seed: int, replace: bool = True) -> Ticket:
    """Each masked layer's surviving values, dealt anew among its survivors.

    Weights without a mask keep their values.

    Args:
        ticket: The ticket.
        seed: Integer.
        replace: True draws with replacement from a layer's surviving values, the paper's
            "reinit from D_m"; False permutes them, Zhou et al.'s "reshuffle".

    Source: Frankle & Carbin, 1803.03635, appendix F.3; Zhou et al., 1905.01067.

    Example:

    >>> ticket = Ticket({"w": np.array([True, True, False])}, {"w": np.array([1.0, 2.0, 3.0])})
    >>> sorted(resample_survivors(ticket, seed=0, replace=False).weights["w"].tolist())
    [0.0, 1.0, 2.0]
    """
    rng = np.random.default_rng(seed)
    values = of_survivors(
        ticket, lambda path, own: rng.choice(own, own.size, replace) if own.size else own
    )
    about = {"name": "resample_survivors", "seed": seed, "replace": replace}
    return variant(ticket, about, values)


def noise(ticket: Ticket, seed: int, scale: float, dense: Ticket) -> Ticket:
    """The ticket's values plus Gaussian noise in proportion to each layer's spread.

    Adds draws from N(0, (scale * sigma)^2) to the survivors of each masked layer, where
    sigma is the standard deviation of all the layer's initial values. Weights without a
    mask keep their values.

    Args:
        ticket: The ticket.
        seed: Integer.
        scale: Float from 0, in units of sigma; the paper takes 0.5, 1, 2 and 3.
        dense: The dense ticket of the same search (round 0), which knows all initial
            values.

    Raises:
        ValueError: If `scale` is negative or not finite, or `dense` is of another search.

    Source: Frankle & Carbin, 1803.03635, appendix F.7.

    Example:

    >>> dense = Ticket({"w": np.ones(3, bool)}, {"w": np.array([1.0, 2.0, 3.0])})
    >>> ticket = Ticket({"w": np.array([True, True, False])}, dense.weights)
    >>> noise(ticket, 0, 0.0, dense).weights["w"].tolist()
    [1.0, 2.0, 0.0]
    """
    if not (scale >= 0 and np.isfinite(scale)):
        raise ValueError(f"`scale` must be a finite number from 0. Received: {scale!r}")
    sigma = {p: spread(v) for p, v in full_values(ticket, dense, "dense").items()}
    rng = np.random.default_rng(seed)
    values = of_survivors(
        ticket, lambda path, own: own + rng.normal(0, scale * sigma[path], own.size)
    )
    return variant(ticket, {"name": "noise", "seed": seed, "scale": scale}, values)
