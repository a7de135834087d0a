"""Zhou's mask-0 actions: pruned weights frozen at values other than 0.

The ticket says what trains; the frozen values are kept beside it, since a ticket's own
pruned weights are 0. `Ticket.apply` puts the pruned weights back to 0.
"""

from dataclasses import dataclass

import keras
import numpy as np

from keras_lottery import weights
from keras_lottery.controls.drawing import Model, drawn
from keras_lottery.controls.variants import full_values, variant
from keras_lottery.enforcement import Enforcement
from keras_lottery.masks import Array, Path
from keras_lottery.tickets import Ticket


@dataclass(frozen=True)
class Frozen:
    """A ticket whose pruned weights hold other values than 0.

    Args:
        ticket: What trains, and from what values.
        values: Dict of path to array of the weight's shape: what a pruned weight holds;
            the values at alive positions are not used.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> kernel = model.layers[0].kernel.path
    >>> ticket = Ticket.of(model, {kernel: np.array([[True], [False]])})
    >>> _ = Frozen(ticket, {kernel: np.array([[9.0], [0.5]])}).apply(model)
    >>> float(model.layers[0].kernel[1, 0])
    0.5
    """

    ticket: Ticket
    values: dict[Path, Array]

    def __post_init__(self) -> None:
        for path, value in self.values.items():
            if path not in self.ticket.masks or np.shape(value) != self.ticket.masks[path].shape:
                shapes = {p: m.shape for p, m in self.ticket.masks.items()}
                raise ValueError(
                    f"Frozen values must be of the ticket's masked weights, {shapes}. Received "
                    f"values of shape {np.shape(value)} for {path!r}."
                )

    def apply(self, model: keras.Model) -> Enforcement:
        """Applies the ticket as `Ticket.apply` does, and freezes its pruned weights.

        Returns:
            The handle of `kl.enforce`; see its `freeze` for what holds from then on.

        Raises:
            ValueError: If the model is of another architecture; it is then untouched.
        """
        handle = self.ticket.apply(model)
        theirs = [p for p in weights.all_weights(model) if p in handle.masks]
        if set(theirs) == set(self.ticket.masks):
            return handle.freeze(self.values)
        ours = [p for p in self.ticket.weights if p in self.ticket.masks]
        match = dict(zip(ours, theirs, strict=True))
        return handle.freeze({match[p]: value for p, value in self.values.items()})


def freeze_init(ticket: Ticket, dense: Ticket) -> Frozen:
    """All pruned weights are frozen at their initial values.

    Args:
        ticket: The ticket.
        dense: The dense ticket of the same search (round 0), which knows all initial
            values.

    Raises:
        ValueError: If `dense` is pruned or of another search.

    Source: Zhou et al., 1905.01067, section 3 (mask-0 actions).

    Example:

    >>> dense = Ticket({"w": np.ones(2, bool)}, {"w": np.array([1.0, 2.0])})
    >>> ticket = Ticket({"w": np.array([True, False])}, dense.weights)
    >>> freeze_init(ticket, dense).values["w"].tolist()
    [1.0, 2.0]
    """
    values = full_values(ticket, dense, "dense")
    return Frozen(variant(ticket, {"name": "freeze_init"}, {}), values)


def freeze_increased(ticket: Ticket, dense: Ticket, trained: Ticket) -> Frozen:
    """Pruned weights that grew in training are frozen at their initial values, others are 0.

    The authors' "freeze_init_zero_mask": a weight grew if its trained magnitude is larger
    than its initial one. (In their code a weight that did not change is frozen too.)

    Args:
        ticket: The ticket.
        dense: As in `freeze_init`.
        trained: The ticket of round 0 with the trained weights in their place:
            `Ticket.of(model, dense.masks)` after the dense network's training.

    Raises:
        ValueError: If `dense` or `trained` is pruned or of another search.

    Source: Zhou et al., 1905.01067, section 3 (mask-0 actions).

    Example:

    >>> dense = Ticket({"w": np.ones(3, bool)}, {"w": np.array([1.0, 2.0, 3.0])})
    >>> trained = Ticket(dense.masks, {"w": np.array([5.0, -2.5, 0.1])})
    >>> ticket = Ticket({"w": np.array([True, False, False])}, dense.weights)
    >>> freeze_increased(ticket, dense, trained).values["w"].tolist()
    [1.0, 2.0, 0.0]
    """
    values = _increased(ticket, dense, trained)
    return Frozen(variant(ticket, {"name": "freeze_increased"}, {}), values)


def freeze_init_zero_all(ticket: Ticket, dense: Ticket, trained: Ticket) -> Frozen:
    """As `freeze_increased`, and survivors whose magnitude decreased start from 0.

    Those survivors still train.

    Args:
        ticket: The ticket.
        dense: As in `freeze_init`.
        trained: As in `freeze_increased`.

    Raises:
        ValueError: If `dense` or `trained` is pruned or of another search.

    Source: Zhou et al., 1905.01067, section 3 (mask-0 actions).

    Example:

    >>> dense = Ticket({"w": np.ones(3, bool)}, {"w": np.array([1.0, 2.0, 3.0])})
    >>> trained = Ticket(dense.masks, {"w": np.array([5.0, -2.5, 0.1])})
    >>> ticket = Ticket({"w": np.array([True, False, True])}, dense.weights)
    >>> freeze_init_zero_all(ticket, dense, trained).ticket.weights["w"].tolist()
    [1.0, 0.0, 0.0]
    """
    values = _increased(ticket, dense, trained)
    start = {
        p: np.where(np.abs(trained.weights[p]) < np.abs(dense.weights[p]), v.dtype.type(0), v)
        for p, v in ticket.weights.items()
        if p in ticket.masks
    }
    return Frozen(variant(ticket, {"name": "freeze_init_zero_all"}, start), values)


def freeze_reinit(ticket: Ticket, model: Model, seed: int) -> Frozen:
    """All pruned weights are frozen at newly drawn initial values.

    Args:
        ticket: A ticket of `model`'s architecture; its survivors keep their values.
        model: The model, or a function that builds it, as in `reinitialize`.
        seed: Integer.

    Raises:
        ValueError: If a weight has no known initializer, or the architecture differs.

    Source: Zhou et al., 1905.01067, section 3 (mask-0 actions).

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> kernel = model.layers[0].kernel.path
    >>> ticket = Ticket.of(model, {kernel: np.array([[True], [False]])})
    >>> bool(freeze_reinit(ticket, model, seed=1).values[kernel][1, 0] != 0)
    True
    """
    fresh = drawn(ticket, model, seed)
    about = {"name": "freeze_reinit", "seed": seed}
    return Frozen(variant(ticket, about, {}), {p: fresh[p] for p in ticket.masks})


def _increased(ticket: Ticket, dense: Ticket, trained: Ticket) -> dict[Path, Array]:
    """The initial values of the weights whose magnitude grew in training, else 0."""
    final = full_values(ticket, trained, "trained")
    return {
        p: np.where(np.abs(final[p]) > np.abs(v), v, v.dtype.type(0))
        for p, v in full_values(ticket, dense, "dense").items()
    }
