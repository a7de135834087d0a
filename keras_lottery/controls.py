"""Controls: what a ticket is compared with. Ticket in, new ticket out; all seeded."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import keras
import numpy as np

from keras_lottery import masks as mask_ops
from keras_lottery import scopes, weights
from keras_lottery.masks import Array, Path
from keras_lottery.tickets import Ticket


def reinitialize(
    ticket: Ticket, model: keras.Model | Callable[[], keras.Model], seed: int
) -> Ticket:
    """The ticket's masks over a new random initialization, the papers' main control.

    Args:
        ticket: A ticket of `model`'s architecture.
        model: The built model, whose initializers are drawn from again; it is not
            changed; non-trainable weights without an initializer keep their values. For
            layers that keep no initializer (`kernel_initializer` for `kernel`, and so on),
            a function that builds a new model: then Keras is seeded with `seed` and its
            fresh weights are taken.
        seed: Integer.

    Raises:
        ValueError: If a weight has no known initializer, or the architecture differs.

    Source: Frankle & Carbin, 1803.03635, section 2.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> kernel = model.layers[0].kernel.path
    >>> ticket = Ticket.of(model, {kernel: np.array([[True], [False]])})
    >>> again = reinitialize(ticket, model, seed=1)
    >>> again.density, bool(again.weights[kernel][0] == ticket.weights[kernel][0])
    (0.5, False)
    """
    if isinstance(model, keras.Model):
        fresh = _redraw(model, seed)
    else:
        keras.utils.set_random_seed(seed)
        fresh = list(weights.read(weights.all_weights(model())).values())
    shapes = [v.shape for v in ticket.weights.values()]
    if shapes != [v.shape for v in fresh]:
        raise ValueError(
            f"The ticket belongs to another architecture: its weights have shapes {shapes}, the "
            f"model's {[v.shape for v in fresh]}."
        )
    values = dict(zip(ticket.weights, fresh, strict=True))
    return _control(ticket, "reinitialize", seed, weights=values)


def random_mask(
    ticket: Ticket,
    seed: int,
    dense: Ticket | None = None,
    counts: Literal["layerwise", "global"] = "layerwise",
) -> Ticket:
    """Random masks with as many alive weights as the ticket's.

    Args:
        ticket: The ticket.
        seed: Integer.
        dense: The dense ticket of the same search (round 0), which knows the initial
            values at the new positions. Without it the ticket's own values move to the new
            positions, since a ticket keeps only the values of its alive weights.
        counts: `"layerwise"` keeps the number of each layer, `"global"` only their sum.

    Source: Frankle & Carbin, 1803.03635, figure 1.

    Example:

    >>> ticket = Ticket({"w": np.array([True, False, False])}, {"w": np.ones(3)})
    >>> int(random_mask(ticket, seed=0).masks["w"].sum())
    1
    """
    if counts not in ("layerwise", "global"):
        raise ValueError(f'`counts` must be "layerwise" or "global". Received: {counts!r}')
    rng = np.random.default_rng(seed)
    scores = {p: rng.random(ticket.masks[p].shape) for p in sorted(ticket.masks)}
    alive = {p: n for p, (n, _) in mask_ops.counts(ticket.masks).items()}
    full = mask_ops.full({p: m.shape for p, m in ticket.masks.items()})
    if counts == "global":
        masks = scopes.keep_best(scores, full, sum(alive.values()))
    else:
        masks = {p: scopes.keep_best(scores, {p: full[p]}, alive[p])[p] for p in full}
    values = _values_at(ticket, masks, dense, seed)
    return _control(ticket, "random_mask", seed, masks=masks, weights=values)


def shuffle_mask(ticket: Ticket, seed: int, dense: Ticket | None = None) -> Ticket:
    """The ticket's masks with the positions inside each layer permuted.

    Args:
        ticket: The ticket.
        seed: Integer.
        dense: As in `random_mask`. Without it the weights are permuted with the masks.

    Source: Frankle et al., 2009.08576.

    Example:

    >>> ticket = Ticket({"w": np.array([True, False, False])}, {"w": np.ones(3)})
    >>> int(shuffle_mask(ticket, seed=0).masks["w"].sum())
    1
    """
    orders = mask_ops.shuffle_orders(ticket.masks, seed)
    masks = mask_ops.shuffle(ticket.masks, seed)
    moved = {p: mask_ops.reorder(ticket.weights[p], orders[p]) for p in masks}
    values = {**ticket.weights, **(moved if dense is None else _dense_values(ticket, dense))}
    return _control(ticket, "shuffle_mask", seed, masks=masks, weights=values)


NAMED: dict[str, Callable[..., Ticket]] = {
    "reinitialize": reinitialize,
    "random_mask": random_mask,
    "shuffle_mask": shuffle_mask,
}


def _control(ticket: Ticket, name: str, seed: int, **changes: Any) -> Ticket:
    about = {**ticket.metadata, "control": {"name": name, "seed": seed}}
    return replace(ticket, metadata=about, **changes)


def _values_at(
    ticket: Ticket, masks: mask_ops.Masks, dense: Ticket | None, seed: int
) -> dict[Path, Array]:
    """Initial values for new masks: the dense ticket's, or the ticket's own, redealt."""
    values = dict(ticket.weights)
    if dense is not None:
        return values | _dense_values(ticket, dense)
    rng = np.random.default_rng((seed, 1))
    for path, mask in masks.items():
        own = ticket.weights[path][ticket.masks[path]]
        n = int(np.count_nonzero(mask))
        values[path] = np.zeros_like(ticket.weights[path])
        if own.size:
            values[path][mask] = rng.choice(own, n, replace=n > own.size)
    return values


def _dense_values(ticket: Ticket, dense: Ticket) -> dict[Path, Array]:
    if dense.density != 1 or dense.masks.keys() != ticket.masks.keys():
        raise ValueError(
            f"`dense` must be the dense ticket (round 0) of the same search. Received one of "
            f"density {dense.density:.2%} with the paths {list(dense.masks)}."
        )
    return {p: dense.weights[p] for p in ticket.masks}


def _redraw(model: keras.Model, seed: int) -> list[Array]:
    """New initial values for every weight, from its layer's initializers."""
    held_by = weights.owners(model)
    fresh = []
    for i, (path, variable) in enumerate(weights.all_weights(model).items()):
        initializer = _initializer(held_by.get(id(variable), []), variable)
        if initializer is None and not variable.trainable:
            fresh.append(variable.numpy())
            continue
        if initializer is None:
            raise ValueError(
                f"No initializer is known for {path!r}. Pass a function that builds the model "
                "in place of the model."
            )
        config = initializer.get_config()
        if "seed" in config:
            config["seed"] = int(np.random.SeedSequence((seed, i)).generate_state(1)[0] % 2**31)
        drawn = type(initializer).from_config(config)(variable.shape, dtype=variable.dtype)
        fresh.append(np.array(keras.ops.convert_to_numpy(drawn)))
        if any(getattr(layer, "unit_forget_bias", False) for layer in held_by[id(variable)]):
            _open_forget_gate(variable, fresh[-1])
    return fresh


def _open_forget_gate(variable: keras.Variable, value: Array) -> None:
    """LSTM cells start with a forget-gate bias of 1, whatever their bias initializer."""
    if variable.name == "bias":
        units = value.shape[0] // 4
        value[units : 2 * units] = 1


def _initializer(layers: list[keras.layers.Layer], variable: keras.Variable) -> Any:
    """The layer's initializer of a variable; `recurrent_kernel` has `recurrent_initializer`."""
    stems = [variable.name, variable.name.removesuffix("_kernel")]
    stems += ["depthwise"] if variable.name == "kernel" else []
    for layer in layers:
        for stem in stems:
            found = getattr(layer, f"{stem}_initializer", None)
            if isinstance(found, keras.initializers.Initializer):
                return found
    return None
