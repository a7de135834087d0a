"""New initial values for a ticket, drawn from the initializers of its model."""

from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import numpy as np

from keras_lottery import weights
from keras_lottery.masks import Array, Path
from keras_lottery.tickets import Ticket

Model: TypeAlias = keras.Model | Callable[[], keras.Model]


def drawn(ticket: Ticket, model: Model, seed: int) -> dict[Path, Array]:
    """New initial values for every weight of the ticket; see `reinitialize`.

    Raises:
        ValueError: If a weight has no known initializer, or the architecture differs.
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
    return dict(zip(ticket.weights, fresh, strict=True))


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
