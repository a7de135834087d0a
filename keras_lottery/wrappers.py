"""Layers that carry a mask as part of the architecture, saved with it."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import keras
import numpy as np

from keras_lottery import enforcement, weights
from keras_lottery.compaction.copying import copy_adapted
from keras_lottery.masks import Masks, Path


@keras.saving.register_keras_serializable(package="keras_lottery")
class Masked(keras.layers.Wrapper):
    """Computes the wrapped layer with `weight * mask` in place of its weights.

    The masks are weights of this layer, so they are saved, loaded and copied with the
    model; set them through `masks`. Gradients of pruned weights are 0. Use it where the
    mask belongs to the architecture; to prune any model as it is, use `kl.enforce`.
    Loading a model that holds it needs `import keras_lottery`; `kl.strip` takes it out.
    Subclasses learn a mask by overriding `effective_weight`.

    Args:
        layer: Any Keras layer, also a nested one or one with state (BatchNorm, dropout).
        filters: Which of its weights get a mask, as in `LotteryCallback`.

    Source: for masks over frozen weights, Zhou et al., 1905.01067.

    Example:

    >>> layer = Masked(keras.layers.Dense(1, use_bias=False))
    >>> layer.build((None, 2))
    >>> layer.masks = {p: np.array([[True], [False]]) for p in layer.masks}
    >>> float(layer(np.array([[0.0, 5.0]]))[0, 0])
    0.0
    """

    def __init__(self, layer: keras.layers.Layer, filters: Any = None, **kwargs: Any):
        super().__init__(layer, **kwargs)
        self.filters = filters
        self.supports_masking = layer.supports_masking

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.layer.built:  # by its own call, so that layers of several inputs build
            self.layer(*keras.tree.map_structure(_symbol, args), **kwargs)
        return super().__call__(*args, **kwargs)

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        self._targets = list(weights.prunable(self.layer, self.filters).items())
        self._mask_variables = [
            self.add_weight(
                name=f"mask_{i}", shape=v.shape, dtype="bool", initializer="ones", trainable=False
            )
            for i, (_, v) in enumerate(self._targets)
        ]
        for i, (_, variable) in enumerate(self._targets):
            if variable.regularizer is not None:
                variable.regularizer = _OfEffectiveWeight(self, i, variable.regularizer)

    @property
    def masks(self) -> Masks:
        """Dict of path to bool array, True = alive. Assign the same form to change them."""
        pairs = zip(self._targets, self._mask_variables, strict=True)
        return {p: np.asarray(m.numpy(), bool) for (p, _), m in pairs}

    @masks.setter
    def masks(self, masks: Mapping[Path, Any]) -> None:
        shapes = {p: tuple(v.shape) for p, v in self._targets}
        received = {p: np.shape(m) for p, m in masks.items()}
        if received != shapes:
            raise ValueError(f"Expected masks of shapes {shapes}. Received: {received}")
        for (path, _), mask in zip(self._targets, self._mask_variables, strict=True):
            mask.assign(np.asarray(masks[path], bool))

    def effective_weight(self, index: int, weight: Any) -> Any:
        """What the layer computes with instead of `weight`, its `index`-th masked one."""
        return weight * keras.ops.cast(self._mask_variables[index], weight.dtype)

    def call(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        replaced = [
            (v, self.effective_weight(i, keras.ops.convert_to_tensor(v)))
            for i, (_, v) in enumerate(self._targets)
        ]
        with keras.StatelessScope(state_mapping=replaced, collect_losses=True) as scope:
            outputs = self.layer(inputs, *args, **kwargs)
        # The scope caught what the layer added or updated: losses, statistics, seeds.
        for loss in scope.losses or []:
            self.add_loss(loss)
        own = {id(v) for _, v in self._targets}  # not trainable either in a frozen layer
        for variable in self.layer.non_trainable_variables:
            value = None if id(variable) in own else scope.get_current_value(variable)
            if value is not None:
                variable.assign(value)
        return outputs

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        return self.layer.compute_mask(inputs, previous_mask)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(input_shape)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_output_spec(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if callable(self.filters):
            raise ValueError(
                "A layer whose `filters` is a callable cannot be saved. Use a regex or a list."
            )
        return {**config, "filters": self.filters}


def _symbol(value: Any) -> Any:
    """A tensor's shape and dtype without its value."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return keras.KerasTensor(value.shape, dtype=keras.backend.standardize_dtype(value.dtype))
    return value


class _OfEffectiveWeight:
    """A layer's regularizer, of the weight that the layer computes with."""

    def __init__(self, owner: Masked, index: int, regularizer: Any):
        self._of = (owner, index, regularizer)

    def __call__(self, weight: Any) -> Any:
        owner, index, regularizer = self._of
        return regularizer(owner.effective_weight(index, keras.ops.convert_to_tensor(weight)))


def strip(model: keras.Model) -> keras.Model:
    """Takes everything of this package off a model; pruned weights keep their zeros.

    Enforced masks are removed in place. If the model holds `Masked` layers, at any depth,
    a copy without them is built from its config, its weights multiplied by the masks; the
    copy is not compiled.

    Returns:
        The plain Keras model: the same object, unless wrappers had to go. It saves and
        loads without this package.

    Raises:
        ValueError: If the model is one of tf_keras, or a `Masked` layer learns its masks.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), Masked(keras.layers.Dense(1))])
    >>> [type(layer).__name__ for layer in strip(model).layers]
    ['Dense']
    """
    try:
        weights.check_keras_3(model)
    except ValueError as error:
        raise ValueError(f"{error} tfmot's own `strip_pruning` takes its wrappers off.") from None
    enforcement.release(model)
    return unwrapped(model)


def unwrapped(model: keras.Model) -> keras.Model:
    """The model without `Masked` layers; masks that `enforce` keeps on it stay in force.

    Returns:
        The same object if it holds none; else a copy, its weights multiplied by the masks,
        not compiled, while `model` is left as it is.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), Masked(keras.layers.Dense(1))])
    >>> [type(layer).__name__ for m in (unwrapped(model), model) for layer in m.layers]
    ['Dense', 'Masked']
    """
    wrapped = [layer for layer in weights.sublayers(model) if isinstance(layer, Masked)]
    if not wrapped:
        return model
    _check_fixed(wrapped)
    masked = {
        id(v): np.where(mask, v.numpy(), v.numpy().dtype.type(0))
        for layer in wrapped
        for (_, v), mask in zip(layer._targets, layer.masks.values(), strict=True)
    }
    plain = type(model).from_config(_without_wrappers(model.get_config()))
    if not plain.built:
        plain.build_from_config(model.get_build_config())
    layers = [layer for layer in weights.sublayers(model) if not isinstance(layer, Masked)]
    for layer, copy in zip(layers, weights.sublayers(plain), strict=True):
        for old, new in zip(weights.owned(layer), weights.owned(copy), strict=True):
            new.assign(masked.get(id(old), old.numpy()))
        if hasattr(layer, "adapt"):
            copy_adapted(layer, copy)
    return cast(keras.Model, plain)


def _check_fixed(wrapped: Sequence[Masked]) -> None:
    """Raises for wrappers whose masks are learned: what they wrap is not their result."""
    for layer in wrapped:
        if type(layer) is not Masked:
            raise ValueError(
                f"{layer.name!r} is a {type(layer).__name__}, which learns its masks: take its "
                "ticket with `kl.strong.ticket(search)`, apply that to the original model, and "
                "strip the model."
            )


def _without_wrappers(config: Any) -> Any:
    """A model's config with each `Masked` replaced by what it wraps, under its name."""
    if isinstance(config, dict) and config.get("registered_name") == "keras_lottery>Masked":
        inner = dict(config["config"]["layer"])
        inner["config"] = {**inner["config"], "name": config["config"]["name"]}
        kept = {key: config[key] for key in ("name", "inbound_nodes") if key in config}
        return _without_wrappers({**inner, **kept})
    if isinstance(config, dict):
        return {key: _without_wrappers(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_without_wrappers(value) for value in config)
    return config
