"""The one place that keeps pruned weights at zero.

When exactly is a pruned weight zero? From `enforce` on, whenever Python can look:
after `enforce` and `update` themselves, and after every optimizer step. In between,
inside a step, three things make that step one of the network without those weights:

1. Gradients are masked on their way into the outermost `optimizer.apply`, before any
   clipping by norm, momentum, accumulation or orthogonalization can see them; so the
   slots of a pruned weight stay 0 as well.
2. A weight, gradient and slot of 0 leave weight and slots at 0 under every elementwise
   rule (`holding.keeps_zeros`). Under any other optimizer (Muon mixes a whole matrix, Adafactor
   stores a product of row and column means) the weight is masked again through
   `variable.constraint`, which Keras applies last, and its slots, averages (EMA)
   included, after the step. A user's own constraint is kept between two maskings.

`freeze` gives pruned weights other values than 0, which they hold in the same way: through
the constraint whatever the optimizer, and in the averages of the weights (EMA).

Masks are bool variables, one byte a weight, read by the compiled step: `update`
assigns them and nothing is traced again. What the model's `load_weights` and
`set_weights` write is masked at once, what else writes into a variable at the next `fit`.
A loop that calls `optimizer.apply` itself is exact too if the optimizer is the model's or
is passed to `enforce`, and if its `tf.function` is traced after `enforce` and `freeze`.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_lottery import weights
from keras_lottery.holding import HoldPruned, check_frozen, checked_masks, keeps_zeros, masked
from keras_lottery.masks import Array, Masks, Path

_HOOKS = ("make_train_function", "set_weights", "load_weights")
_enforced: "weakref.WeakKeyDictionary[keras.Model, Enforcement]" = weakref.WeakKeyDictionary()


def enforce(
    model: keras.Model, masks: Mapping[Path, Any], optimizer: keras.Optimizer | None = None
) -> "Enforcement":
    """Zeroes the pruned weights of `model` and keeps them at zero through training.

    Works before or after `compile`, for every optimizer and feature of Keras; see the
    module's docstring for when exactly. If the model already carries masks of the same
    paths they are updated, without a new trace; values that `freeze` gave are taken off.

    Args:
        model: A built Keras model.
        masks: Dict of path to bool array of the weight's shape, True = alive. Weights
            without a mask are left alone.
        optimizer: The optimizer of a custom training loop. Default: the compiled one.

    Returns:
        A handle with `masks`, `update(masks)`, `freeze(values)` and `remove()`; also a
        context manager that removes the masks on exit (the weights keep their zeros).

    Raises:
        ValueError: If a path is unknown or a shape differs.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="out")])
    >>> path = model.layers[0].kernel.path
    >>> with enforce(model, {path: np.array([[True], [False]])}):
    ...     float(model.layers[0].kernel[1, 0])
    0.0
    """
    current = _enforced.get(model)
    if current is not None and current.covers(masks):
        current.update(masks)
        current.freeze({})
        current.follow(optimizer)
        return current
    checked = checked_masks(model, masks)
    if current is not None:
        current.remove()
    return Enforcement(model, checked, optimizer)


def enforced_masks(model: keras.Model) -> Masks | None:
    """The masks enforced on `model` now, or `None`."""
    current = _enforced.get(model)
    return None if current is None else current.masks


def release(model: keras.Model) -> None:
    """Removes what `enforce` put on the model, if anything; zeros stay."""
    current = _enforced.get(model)
    if current is not None:
        current.remove()


class Enforcement:
    """Masks on one model. Made by `enforce`."""

    def __init__(self, model: keras.Model, masks: Masks, optimizer: keras.Optimizer | None):
        named = weights.all_weights(model)
        self._model = weakref.ref(model)
        self._variables = {p: named[p] for p in masks}
        self._constraints = {p: v.constraint for p, v in self._variables.items()}
        with model.distribute_strategy.scope():
            self._masks = {
                p: keras.Variable(m, dtype="bool", trainable=False, name="mask")
                for p, m in masks.items()
            }
        self._by_id = {id(v): self._masks[p] for p, v in self._variables.items()}
        self._frozen: weights.Variables = {}
        self._optimizer: keras.Optimizer | None = None
        self._slots: dict[Path, weights.Variables] = {}
        _enforced[model] = self
        self._hook(model)
        self._constrain()
        self.follow(optimizer)
        self.remask()

    @property
    def masks(self) -> Masks:
        """The masks in force, as copies: dict of path to bool array."""
        return {p: np.asarray(m.numpy(), bool) for p, m in self._masks.items()}

    @property
    def slots(self) -> dict[Path, weights.Variables]:
        """The optimizer's variables shaped like each masked weight."""
        return self._slots

    def covers(self, masks: Mapping[Path, Any]) -> bool:
        """Whether `masks` has the paths and shapes that this handle enforces."""
        shapes = {p: tuple(m.shape) for p, m in self._masks.items()}
        return shapes == {p: tuple(np.shape(m)) for p, m in masks.items()}

    def update(self, masks: Mapping[Path, Any], remask: bool = True) -> None:
        """Replaces the masks and zeroes what they prune; nothing is traced again.

        Args:
            masks: Dict of path to bool array, of the paths and shapes enforced so far.
            remask: False if the caller writes zeros to pruned weights and slots itself.

        Raises:
            ValueError: If paths or shapes differ from the enforced ones.
        """
        if not self.covers(masks):
            shapes = {p: tuple(m.shape) for p, m in self._masks.items()}
            received = {p: tuple(np.shape(m)) for p, m in masks.items()}
            raise ValueError(f"Expected masks of shapes {shapes}. Received: {received}")
        weights.write(self._masks, {p: np.asarray(m, bool) for p, m in masks.items()})
        if remask:
            self.remask()

    def freeze(self, values: Mapping[Path, Array]) -> "Enforcement":
        """From now on a pruned weight holds its value in `values` in place of 0.

        The masks still say what trains: gradients and slots of pruned weights stay 0, and
        `update` lets newly pruned weights go to their values. Exact after every step, for
        every optimizer; the next `fit` traces its step anew. `remove` and `kl.strip` leave
        an ordinary model with those values; `enforce` and `Ticket.apply` go back to 0.

        Args:
            values: Dict of path to array of the weight's shape, cast to its dtype; only
                its pruned positions count. Paths without one hold 0: `freeze({})` ends it.

        Returns:
            This handle.

        Raises:
            ValueError: If a path is not masked or a shape differs; nothing is changed then.

        Source: Zhou et al., 1905.01067, section 3 (mask-0 actions).

        Example:

        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> path = model.layers[0].kernel.path
        >>> masks = {path: np.array([[True], [False]])}
        >>> _ = enforce(model, masks).freeze({path: np.array([[7.0], [0.5]])})
        >>> float(model.layers[0].kernel[1, 0])
        0.5
        """
        check_frozen(values, self._masks)
        model, optimizer = self._model(), self._optimizer
        if model is None or not (values or self._frozen):
            return self
        with model.distribute_strategy.scope():
            self._frozen = {
                p: keras.Variable(v, dtype=self._variables[p].dtype, trainable=False, name="frozen")
                for p, v in values.items()
            }
        if optimizer is not None:
            self._unwrap()
            self._wrap(optimizer)
        self._constrain()
        self.remask()
        model.train_function = None
        return self

    def remask(self) -> None:
        """Puts pruned weights and their optimizer slots to their values now: 0, or frozen."""
        for path, variable in self._variables.items():
            variable.assign(masked(self._masks[path], variable, self._frozen.get(path)))
        for mask, slot, frozen in self._held_slots(all_slots=True):
            slot.assign(masked(mask, slot, frozen))

    def remove(self) -> None:
        """Takes everything off the model again; the weights keep their values."""
        model = self._model()
        self._release_optimizer()
        for path, variable in self._variables.items():
            variable.constraint = self._constraints[path]
        if model is not None and _enforced.get(model) is self:
            del _enforced[model]
            for name in _HOOKS:
                delattr(model, name)
            model.train_function = None

    def __enter__(self) -> "Enforcement":
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()

    def follow(self, optimizer: keras.Optimizer | None = None) -> bool:
        """Masks the gradients of this optimizer, by default the compiled one.

        Returns:
            Whether the optimizer is a new one, so that the step must be traced anew.
        """
        model = self._model()
        optimizer = optimizer or getattr(model, "optimizer", None)
        if model is None or optimizer is None or optimizer is self._optimizer:
            return False
        self._release_optimizer()
        if not optimizer.built:  # eagerly: keras-team/keras#23085
            with model.distribute_strategy.scope():
                optimizer.build(model.trainable_variables)
        self._optimizer = optimizer
        self._slots = self._find_slots(model, optimizer)
        self._wrap(optimizer)
        self._constrain()
        self.remask()
        model.train_function = None
        return True

    def _find_slots(
        self, model: keras.Model, optimizer: keras.Optimizer
    ) -> dict[Path, weights.Variables]:
        """Found among all variables, so that none takes another one's slots."""
        named = weights.name(model.trainable_variables)
        slots = {id(named[p]): found for p, found in weights.slots(optimizer, named).items()}
        return {p: slots.get(id(v), {}) for p, v in self._variables.items()}

    def _hook(self, model: keras.Model) -> None:
        """Meets a new optimizer when `fit` asks for its step; masks what users write."""
        make, model_ref = type(model).make_train_function, self._model

        def make_train_function(force: bool = False) -> Any:
            if not self.follow():
                self.remask()
            return make(model_ref(), force)

        def then_masked(write: Callable[..., Any]) -> Callable[..., Any]:
            def write_masked(*args: Any, **kwargs: Any) -> Any:
                result = write(model_ref(), *args, **kwargs)
                self.remask()
                return result

            return write_masked

        model.make_train_function = make_train_function
        model.set_weights = then_masked(type(model).set_weights)
        model.load_weights = then_masked(type(model).load_weights)

    def _wrap(self, optimizer: keras.Optimizer) -> None:
        apply = optimizer.apply
        held = self._held_slots(all_slots=not keeps_zeros(optimizer))

        def masked_apply(grads: Sequence[Any], trainable_variables: Any = None) -> Any:
            known = trainable_variables
            if known is None:
                known = self._model().trainable_variables  # type: ignore[union-attr]
            grads, known = list(grads), list(known)
            if len(grads) != len(known):
                raise ValueError(
                    f"Expected one gradient for each of the model's {len(known)} trainable "
                    f"variables. Received: {len(grads)}. Pass the variables: "
                    "`optimizer.apply(grads, variables)`."
                )
            grads = [self._masked_gradient(g, v) for g, v in zip(grads, known, strict=True)]
            result = apply(grads, trainable_variables)
            for mask, slot, frozen in held:
                slot.assign(masked(mask, slot, frozen))
            return result

        optimizer.apply = masked_apply

    def _held_slots(
        self, all_slots: bool
    ) -> list[tuple[keras.Variable, keras.Variable, keras.Variable | None]]:
        """Mask, slot, frozen value: the averages of frozen weights, or all slots."""
        held = [
            (self._masks[p], slot, self._frozen.get(p) if kind == "average" else None)
            for p, slots in self._slots.items()
            for kind, slot in slots.items()
        ]
        return [h for h in held if all_slots or h[2] is not None]

    def _masked_gradient(self, gradient: Any, variable: Any) -> Any:
        mask = self._by_id.get(id(variable))
        return gradient if mask is None or gradient is None else masked(mask, gradient)

    def _constrain(self) -> None:
        """Holds through `variable.constraint` what might not stay at its value."""
        mixing = not keeps_zeros(self._optimizer)
        for path, variable in self._variables.items():
            user, frozen = self._constraints[path], self._frozen.get(path)
            needed = mixing or user is not None or frozen is not None
            variable.constraint = HoldPruned(self._masks[path], user, frozen) if needed else None

    def _unwrap(self) -> None:
        if self._optimizer is not None and "apply" in vars(self._optimizer):
            del self._optimizer.apply

    def _release_optimizer(self) -> None:
        self._unwrap()
        self._optimizer, self._slots = None, {}
