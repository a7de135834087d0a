"""Keeps pruned weights of a tf_keras model at zero, through tfmot's own mask variables.

tfmot's wrapper multiplies weights by their masks in the forward pass. Its optimizer step sees the
gradients of the dense network: pruned weights leave zero until the next forward pass, their
slots fill, and they count in a clipping by norm. So gradients are masked on their way into the
outermost `optimizer.apply_gradients`, as `kl.enforce` masks them on Keras 3: then weight and
slots of a pruned weight stay 0, and a step is one of the network without it.
"""

import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_lottery import weights
from keras_lottery.holding import masked
from keras_lottery.masks import Masks, Path
from keras_lottery.tfmot.views import ModelView, wrappers

_held: "weakref.WeakKeyDictionary[Any, MaskedSteps]" = weakref.WeakKeyDictionary()


def enforced_masks(model: ModelView) -> Masks:
    """The masks of the wrappers that prune something."""
    masks = {p: np.asarray(m.numpy(), bool) for p, m in _mask_variables(model).items()}
    return {p: m for p, m in masks.items() if not m.all()}


def enforce(model: ModelView, masks: Mapping[Path, Any]) -> "Held":
    """Writes masks into the wrappers and keeps what they prune at zero.

    Args:
        model: A view of a wrapped and compiled tf_keras model.
        masks: Dict of path to bool array of the weight's shape, True = alive.

    Returns:
        A handle with `masks`, `update(masks)` and `remask()`.

    Example:

    >>> from keras_lottery.tfmot.importing import load
    >>> tfmot, keras = load()
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="out")])
    >>> model = tfmot.sparsity.keras.prune_low_magnitude(model)
    >>> model.compile("adam", "mse")
    >>> view = ModelView(model)
    >>> _ = enforce(view, {"out/kernel": np.array([[True], [False]])})
    >>> float(model.get_weights()[0][1, 0])
    0.0
    """
    for wrapper in wrappers(model.model):
        if int(wrapper.pruning_step.numpy()) < 0:  # what UpdatePruningStep does
            wrapper.pruning_step.assign(0)
    steps = _held.get(model.model)
    if steps is None or steps.optimizer is not model.model.optimizer:
        _held[model.model] = MaskedSteps(model)
    held = Held(model)
    held.update(masks)
    return held


def _mask_variables(model: ModelView) -> dict[Path, Any]:
    found = {p: model.mask_of(v) for p, v in weights.all_weights(model).items()}
    return {p: mask for p, mask in found.items() if mask is not None}


class MaskedSteps:
    """An optimizer of tf_keras whose gradients are masked; its step is traced anew."""

    def __init__(self, model: ModelView):
        self.optimizer = model.model.optimizer
        self._masks = {id(v.variable): model.mask_of(v) for v in model.weights}
        apply = self.optimizer.apply_gradients

        def masked_apply(grads_and_vars: Any, *args: Any, **kwargs: Any) -> Any:
            pairs = [(self._masked(g, v), v) for g, v in grads_and_vars]
            return apply(pairs, *args, **kwargs)

        self.optimizer.apply_gradients = masked_apply
        model.model.make_train_function(force=True)

    def _masked(self, gradient: Any, variable: Any) -> Any:
        mask = self._masks.get(id(variable))
        if mask is None or gradient is None:
            return gradient
        return masked(tf.cast(mask, tf.bool), gradient)


class Held:
    """Masks on one model. Made by `enforce`."""

    def __init__(self, model: ModelView):
        self._weights = weights.all_weights(model)
        self._masks = _mask_variables(model)
        self._slots = weights.slots(model.optimizer, self._weights)

    @property
    def masks(self) -> Masks:
        """The masks in force, as copies: dict of path to bool array."""
        return {p: np.asarray(m.numpy(), bool) for p, m in self._masks.items()}

    @property
    def slots(self) -> dict[Path, weights.Variables]:
        """The optimizer's variables shaped like each weight."""
        return self._slots

    def update(self, masks: Mapping[Path, Any], remask: bool = True) -> None:
        """Replaces the masks and zeroes what they prune; nothing is traced again."""
        for path, mask in masks.items():
            variable = self._masks[path]
            variable.assign(np.asarray(mask, variable.dtype.as_numpy_dtype))
        if remask:
            self.remask()

    def remask(self) -> None:
        """Zeroes pruned weights and their optimizer slots."""
        for path, mask in self.masks.items():
            for variable in (self._weights[path], *self._slots[path].values()):
                value = variable.numpy()
                variable.assign(np.where(mask, value, value.dtype.type(0)))
