"""What holds a pruned weight at its value inside a step, and checks of what it is given."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from keras_lottery import weights
from keras_lottery.masks import Array, Masks, Path

# Optimizers under which weight = gradient = slots = 0 stays 0; the exam tests this.
_KEEPS_ZEROS = (
    keras.optimizers.SGD,
    keras.optimizers.RMSprop,
    keras.optimizers.Adam,
    keras.optimizers.AdamW,
    keras.optimizers.Adamax,
    keras.optimizers.Nadam,
    keras.optimizers.Adagrad,
    keras.optimizers.Adadelta,
    keras.optimizers.Ftrl,
    keras.optimizers.Lion,
    keras.optimizers.Lamb,
)


def keeps_zeros(optimizer: keras.Optimizer | None) -> bool:
    """Whether zeros stay zeros; a loss-scaling optimizer leaves the step to its inner one."""
    return type(getattr(optimizer, "inner_optimizer", optimizer)) in _KEEPS_ZEROS


def masked(mask: keras.Variable, value: Any, frozen: keras.Variable | None = None) -> tf.Tensor:
    """`value` where the mask is True, else exactly `frozen` (by default 0), even for NaN.

    The raw op takes half the time of `tf.where`, which broadcasts.
    """
    value = tf.convert_to_tensor(value)
    if frozen is None:
        other = tf.zeros_like(value)
    else:
        other = tf.cast(tf.convert_to_tensor(frozen), value.dtype)
    return tf.raw_ops.Select(condition=tf.convert_to_tensor(mask), x=value, y=other)


class Held(Protocol):
    """Masks that hold pruned weights at zero: `enforcement.Enforcement`, or its like."""

    @property
    def masks(self) -> Masks: ...

    def update(self, masks: Mapping[Path, Any], remask: bool = True) -> None: ...

    def remask(self) -> None: ...


class Enforcer(Protocol):
    """What puts masks on a model: the module `enforcement`, or its like."""

    def enforced_masks(self, model: Any) -> Masks | None: ...

    def enforce(self, model: Any, masks: Mapping[Path, Any]) -> Held: ...


class HoldPruned:
    """A constraint: hold the pruned weights, then the user's own one, then hold again."""

    def __init__(
        self,
        mask: keras.Variable,
        user: Callable[[Any], Any] | None,
        frozen: keras.Variable | None = None,
    ):
        self.mask = mask
        self.user = user
        self.frozen = frozen

    def __call__(self, weight: Any) -> Any:
        weight = masked(self.mask, weight, self.frozen)
        return weight if self.user is None else masked(self.mask, self.user(weight), self.frozen)


def checked_masks(model: keras.Model, masks: Mapping[Path, Any]) -> Masks:
    """The masks as bool arrays, after their paths and shapes were compared."""
    named: Mapping[Path, keras.Variable] = weights.all_weights(model)
    checked: Masks = {}
    for path, mask in masks.items():
        array = np.asarray(mask)
        if path not in named:
            raise ValueError(
                f"The model {model.name!r} has no weight {path!r}. Its weights: {list(named)}"
            )
        if array.shape != tuple(named[path].shape) or array.dtype != bool:
            raise ValueError(
                f"Expected a bool mask of shape {tuple(named[path].shape)} for {path!r}. "
                f"Received: {array.dtype} of shape {array.shape}."
            )
        checked[path] = array
    return checked


def check_frozen(values: Mapping[Path, Array], masks: weights.Variables) -> None:
    """Raises a `ValueError` unless each value is of a masked path and of its shape."""
    for path, value in values.items():
        if path not in masks:
            raise ValueError(
                f"No mask is enforced on {path!r}, so nothing of it can be frozen. Masks are "
                f"enforced on {list(masks)}."
            )
        if np.shape(value) != tuple(masks[path].shape):
            raise ValueError(
                f"Expected frozen values of shape {tuple(masks[path].shape)} for {path!r}. "
                f"Received: {np.shape(value)}"
            )
