"""The weights to compare, in whatever form they come, as values by the paths of one model."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np

from keras_lottery import weights
from keras_lottery.holding import checked_masks
from keras_lottery.masks import Array, Masks, Path
from keras_lottery.tickets import Ticket

Values = Mapping[Path, Array]
Weights: TypeAlias = Values | Sequence[Array] | Ticket | keras.Model


def as_values(model: keras.Model, given: Weights, what: str = "weights") -> dict[Path, Array]:
    """Weights and statistics by the paths of `model`, as its variables would hold them.

    They are matched by path, else (fresh models get new names) one by one in order, if all
    shapes agree. Arrays that have the variable's dtype already are not copied.

    Args:
        model: A built Keras model. It is not changed.
        given: Dict of path to array, a list of arrays as `model.get_weights()` gives it, a
            ticket, or another Keras model of the same architecture.
        what: What the error message calls them.

    Returns:
        Dict of path to array of the variable's shape and dtype, for every weight and
        statistic of the model, in its order.

    Raises:
        ValueError: If the model is not built, if `given` belongs to another architecture
            (names the first mismatch) or if it holds a NaN or an Inf (names the path).
        TypeError: If `model` is no Keras model, or `given` is none of these.

    Example:

    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, name="out")])
    >>> [v.tolist() for v in as_values(model, [np.array([[2.0]]), np.array([3.0])]).values()]
    [[[2.0]], [3.0]]
    """
    check_built(model)
    target = weights.all_weights(model)
    source = _named(model, given, what, target)
    match = _match({p: tuple(v.shape) for p, v in source.items()}, target, what)
    with np.errstate(over="ignore"):
        values = {q: source[p].astype(target[q].dtype, copy=False) for q, p in match.items()}
    bad = weights.not_finite(values)
    if bad:
        raise ValueError(
            f"Expected finite `{what}`. Received: a NaN or an Inf in {bad[0]!r}"
            + (f" and {len(bad) - 1} other weights." if bad[1:] else ".")
        )
    return values


def check_built(model: Any) -> None:
    """Raises a `TypeError` unless `model` is a Keras model, a `ValueError` unless it is built."""
    weights.check_keras_3(model)
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras model. Received: {model!r}")
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built: call it on a batch, or give it a "
            "`keras.Input`."
        )


def as_masks(model: keras.Model, given: Masks | Ticket) -> Masks:
    """Masks by the paths of `model`; those of a ticket are matched as its weights are.

    Raises:
        ValueError: If a path is unknown, a shape differs or a mask is not of bools.

    Example:

    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> path = model.layers[0].kernel.path
    >>> as_masks(model, {path: np.array([[True]])})[path].tolist()
    [[True]]
    """
    if not isinstance(given, Ticket):
        return checked_masks(model, given)
    shapes = {p: v.shape for p, v in given.weights.items()}
    match = _match(shapes, weights.all_weights(model), "masks")
    return {q: given.masks[p] for q, p in match.items() if p in given.masks}


def _named(
    model: keras.Model, given: Any, what: str, target: weights.Variables
) -> dict[Path, Array]:
    """The arrays by path; those of a list get the model's paths as far as it goes."""
    if isinstance(given, Ticket):
        return dict(given.weights)
    if isinstance(given, keras.Model):
        return weights.read(weights.all_weights(given))
    if isinstance(given, Mapping):
        return {p: _array(v) for p, v in given.items()}
    if isinstance(given, (list, tuple)):
        names = {id(v): p for p, v in target.items()}
        order = [names[id(v)] for v in model.weights]
        order += [f"weight {i}" for i in range(len(order), len(given))]
        return {p: _array(v) for p, v in zip(order, given, strict=False)}
    raise TypeError(
        f"`{what}` must be a dict of path to array, a list of arrays as `model.get_weights()` "
        f"gives it, a ticket or a Keras model. Received: {type(given).__name__}"
    )


def _array(value: Any) -> Array:
    """Of a variable or tensor its value; NumPy arrays are taken as they are."""
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value)


def _match(
    source: Mapping[Path, tuple[int, ...]], target: weights.Variables, what: str
) -> dict[Path, Path]:
    """Model path to source path: by name, else by order and shape."""
    shapes = {q: tuple(v.shape) for q, v in target.items()}
    if dict(source) == shapes:
        return {q: q for q in shapes}
    for (p, has), (q, needs) in zip(source.items(), shapes.items(), strict=False):
        if has != needs:
            raise ValueError(
                f"`{what}` belong to another architecture. First mismatch: the model has {q!r} "
                f"of shape {needs}. Received: {p!r} of shape {has}."
            )
    if len(source) != len(shapes):
        longer, short = sorted((list(source), list(shapes)), key=len, reverse=True)
        raise ValueError(
            f"`{what}` belong to another architecture: the model has {len(shapes)} variables. "
            f"Received: {len(source)}. First without a partner: {longer[len(short)]!r}"
        )
    return dict(zip(shapes, source, strict=True))
