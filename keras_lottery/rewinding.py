"""Snapshots: taking and restoring everything that training changes."""

from dataclasses import dataclass

import keras
import numpy as np

from keras_lottery import weights
from keras_lottery.masks import Array, Masks, Path


@dataclass
class Snapshot:
    """A model and its optimizer at one step, as NumPy copies.

    Attributes:
        step: Optimizer steps since the start of the search.
        variables: Every variable of the model by path: weights, BatchNorm statistics
            and the states of random seeds.
        optimizer: The values of `optimizer.variables` in order (step counter, learning
            rate, slots, loss scale), or `None` if there was no optimizer yet.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> start = Snapshot.take(model)
    >>> _ = model.layers[0].kernel.assign([[7.0], [7.0]])
    >>> start.restore(model)
    >>> bool((model.layers[0].kernel.numpy() == 7).any())
    False
    """

    step: int
    variables: dict[Path, Array]
    optimizer: list[Array] | None = None

    @classmethod
    def take(cls, model: keras.Model, step: int = 0) -> "Snapshot":
        """Copies the state of `model` and, if it is compiled, of its built optimizer."""
        return cls(step, weights.read(weights.all_variables(model)), optimizer_state(model))

    def restore(self, model: keras.Model, masks: Masks | None = None) -> None:
        """Writes the copies back, with zeros in place of pruned weights and their slots.

        The optimizer's part is left out if the model has no optimizer, or had none.

        Raises:
            ValueError: If the model's optimizer is another kind than the one copied.
        """
        self.restore_weights(model, masks)
        self.restore_optimizer(model, masks)

    def restore_weights(self, model: keras.Model, masks: Masks | None = None) -> None:
        """The model's part of `restore`."""
        for path, variable in weights.all_variables(model).items():
            variable.assign(_masked(self.variables[path], (masks or {}).get(path)))

    def restore_optimizer(self, model: keras.Model, masks: Masks | None = None) -> None:
        """The optimizer's part of `restore`; into a newly compiled optimizer too."""
        if self.optimizer is None or optimizer_state(model, values=False) is None:
            return
        now = model.optimizer.variables
        if [tuple(v.shape) for v in now] != [a.shape for a in self.optimizer]:
            raise ValueError(
                f"The optimizer {model.optimizer.name!r} has other variables than the one that "
                "was copied at the rewind point. Compile the model alike in every round."
            )
        mask_of = _slot_masks(model, masks or {})
        for variable, value in zip(now, self.optimizer, strict=True):
            if _is_compact(value):
                variable.assign(keras.ops.zeros(value.shape, value.dtype.name))
            else:
                variable.assign(_masked(value, mask_of.get(id(variable))))


def optimizer_state(model: keras.Model, values: bool = True) -> list[Array] | None:
    """The values of the optimizer's variables, or `None` without a built optimizer.

    A variable of zeros, as fresh slots are, takes no memory. `values=False` reads nothing.
    """
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not optimizer.built:
        return None
    return [_compact(v.numpy()) for v in optimizer.variables] if values else []


def _compact(value: Array) -> Array:
    return value if value.any() else np.broadcast_to(np.zeros((), value.dtype), value.shape)


def _is_compact(value: Array) -> bool:
    return value.ndim > 0 and not any(value.strides)


def _masked(value: Array, mask: Array | None) -> Array:
    """`value * mask`, which takes a quarter of the time of `np.where`."""
    if mask is None:
        return value
    return np.asarray(np.multiply(value, mask, dtype=value.dtype))


def _slot_masks(model: keras.Model, masks: Masks) -> dict[int, Array]:
    slots = weights.slots(model.optimizer, weights.all_weights(model))
    return {id(slot): masks[p] for p in masks for slot in slots[p].values()}


def steps_done(model: keras.Model) -> int:
    """Optimizer steps so far; 0 without a built optimizer."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not optimizer.built:
        return 0
    return int(optimizer.iterations.numpy())
