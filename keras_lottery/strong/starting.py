"""From a user's model to the search of its strong ticket."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_lottery import enforcement
from keras_lottery import weights as keras_weights
from keras_lottery.compaction.copying import copy_adapted, copy_layer
from keras_lottery.compaction.tracing import is_graph
from keras_lottery.strong.drawing import check_weights, draw, fans
from keras_lottery.strong.learning import LearnedMask, StrongSearch
from keras_lottery.strong.rules import Rule, register
from keras_lottery.strong.scores import straight_through
from keras_lottery.wrappers import Masked


def start(
    model: keras.Model,
    rule: Rule,
    weights: str = "signed_constant",
    filters: keras_weights.Filters | None = None,
    binary_activations: bool = False,
) -> StrongSearch:
    """A search by `rule` in a copy of `model`; see `edge_popup` for the arguments.

    Raises:
        ValueError: If the model is not built, already carries masks, holds nothing to
            select or cannot be copied.

    Example:

    >>> from keras_lottery.strong.rules import EdgePopup
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> start(model, EdgePopup(density=0.5)).learner.rule.density
    0.5
    """
    check_weights(weights)
    if callable(filters):
        raise ValueError(
            "`filters` of a search must be a regex or a list of them, so that it can be saved. "
            f"Received: {filters!r}"
        )
    _check_plain(model)
    keras_weights.prunable(model, filters)
    with model.distribute_strategy.scope():
        network = copied(model)
        if binary_activations:
            _binarize(network)
        if weights != "keep":
            _prepare(network, weights, filters, rule.seed)
        return StrongSearch(LearnedMask(network, rule, filters), name=f"strong_{model.name}")


def _check_plain(model: keras.Model) -> None:
    wrapped = [la.name for la in keras_weights.sublayers(model) if isinstance(la, Masked)]
    if wrapped or isinstance(model, StrongSearch):
        raise ValueError(
            f"The model {model.name!r} already holds masks, in the layers {wrapped}. Pass the "
            "plain model (`kl.strip` gives it; `search.network` is that of a search)."
        )
    if enforcement.enforced_masks(model) is not None:
        raise ValueError(
            f"Masks are enforced on the model {model.name!r}. Take them off with `kl.strip(model)` "
            "before a strong ticket is searched in it."
        )


def copied(model: keras.Model) -> keras.Model:
    """A copy of a built model with its values; the model itself is left as it is.

    Raises:
        ValueError: If it cannot be copied.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> bool(np.all(copied(model).layers[0].kernel == model.layers[0].kernel))
    True
    """
    try:
        with _uncompiled(model):
            copy = _rebuilt(model)
        pairs = list(zip(model.variables, copy.variables, strict=True))
        if any(tuple(a.shape) != tuple(b.shape) for a, b in pairs):
            raise ValueError("its copy has weights of other shapes")
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"The model {model.name!r} cannot be copied: {error}. A subclassed model needs "
            "`get_config` and a `build` that makes its weights."
        ) from error
    for old, new in pairs:
        new.assign(old)
    copy_adapted(model, copy)
    return copy


@contextlib.contextmanager
def _uncompiled(model: keras.Model) -> Iterator[None]:
    """Keeps Keras from compiling the copy too: the metrics of a network count as the search's."""
    found = [m for m in (model, *keras_weights.sublayers(model)) if getattr(m, "compiled", False)]
    for compiled in found:
        compiled.compiled = False
    try:
        yield
    finally:
        for compiled in found:
            compiled.compiled = True


def _rebuilt(model: keras.Model) -> keras.Model:
    if is_graph(model):
        return keras.models.clone_model(
            model, clone_function=lambda layer: copy_layer(layer, None), recursive=True
        )
    copy = type(model).from_config(model.get_config())
    if not copy.built:
        copy.build_from_config(model.get_build_config())
    return copy


def _prepare(
    network: keras.Model, name: str, filters: keras_weights.Filters | None, seed: int
) -> None:
    """Draws the selected weights; biases 0, normalizations without scale and shift."""
    selected = keras_weights.prunable(network, filters)
    for i, (variable, fan_in) in enumerate(
        zip(selected.values(), fans(network, selected), strict=True)
    ):
        # Apart from the draws of scores, which are seeded by [seed, i].
        rng = np.random.default_rng([seed, i, 1])
        variable.assign(draw(name, tuple(variable.shape), fan_in, rng))
    chosen = {id(v) for v in selected.values()}
    for variable in network.trainable_variables:
        if id(variable) not in chosen:
            _neutralize(variable)


def _neutralize(variable: keras.Variable) -> None:
    if variable.name.endswith("bias") or variable.name == "beta":
        variable.assign(keras.ops.zeros_like(variable))
    elif variable.name == "gamma":
        variable.assign(keras.ops.ones_like(variable))


@register
def binary_activation(x: Any) -> Any:
    """Forward the sign of x, 1 at 0; backward the identity where |x| <= 1, else 0.

    Args:
        x: Float tensor.

    Returns:
        Tensor of -1 and 1 of the same shape and dtype.

    Source: Courbariaux et al., 1602.02830; Diffenderfer and Kailkhura, 2103.09377.

    Example:

    >>> binary_activation(keras.ops.array([-0.5, 0.0, 3.0])).numpy().tolist()
    [-1.0, 1.0, 1.0]
    """
    x = keras.ops.convert_to_tensor(x)
    one = keras.ops.ones_like(x)
    inside = keras.ops.cast(keras.ops.abs(x) <= 1, x.dtype)
    return straight_through(x, keras.ops.where(x >= 0, one, -one), inside)


def _binarize(network: keras.Model) -> None:
    """Puts `binary_activation` in the place of every ReLU given as an `activation`."""
    relus = [
        layer
        for layer in keras_weights.sublayers(network)
        if getattr(layer, "activation", None) is keras.activations.relu
    ]
    if not relus:
        raise ValueError(
            "`binary_activations=True` replaces activations 'relu', and the model "
            f"{network.name!r} has none. Give them as `activation='relu'` of a layer."
        )
    for layer in relus:
        layer.activation = binary_activation
