"""Tickets across: from tf_keras models to Keras 3 and back, weights and masks bit for bit."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_lottery import enforcement, weights
from keras_lottery.masks import Masks, Path
from keras_lottery.tfmot.importing import load
from keras_lottery.tfmot.views import VariableView, embeddings, path_of, wrappers
from keras_lottery.tickets import Ticket, in_order

Shapes = Mapping[Path, tuple[int, ...]]


def ticket_of(model: Any) -> Ticket:
    """The ticket of a tf_keras model that tfmot wrapped, or that it stripped.

    Of a wrapped model the masks are tfmot's mask variables. Of one without wrappers they are
    the zeros of its prunable weights: trainable, of rank 2 or more, not called `bias`, not
    in an embedding. The weights are those that the model has now.

    Args:
        model: A built tf_keras model. It is not changed.

    Returns:
        A ticket whose paths are the variables' names (`"dense/kernel"`). `to_keras3` brings
        it into a Keras 3 model.

    Raises:
        ValueError: If the model is not of tf_keras, not built, or wrapped but without masks.

    Example:

    >>> _, tf_keras = load()
    >>> model = tf_keras.Sequential([tf_keras.Input((2,)), tf_keras.layers.Dense(1)])
    >>> model.set_weights([np.array([[3.0], [0.0]]), np.array([0.0])])
    >>> ticket_of(model).density
    0.5
    """
    _check_tf_keras(model)
    values = {path: view.numpy() for path, view in _weights(model).items()}
    masks = _mask_variables(model)
    if masks:
        alive = {path: np.asarray(mask.numpy(), bool) for path, mask in masks.items()}
    else:
        alive = {path: np.asarray(values[path] != 0, bool) for path in _prunable(model)}
    return Ticket(alive, values, {"source": "tfmot"})


def to_keras3(ticket: Ticket, model: keras.Model) -> enforcement.Enforcement:
    """Writes a ticket of a tf_keras model into a Keras 3 model and enforces its masks.

    As `ticket.apply(model)`, except that layers are matched by their names first, so that
    it does not matter where tf_keras and Keras 3 order variables differently. If the names
    differ, variables are matched one by one in order.

    Args:
        ticket: A ticket of the same layers.
        model: A built Keras 3 model.

    Returns:
        The handle of `kl.enforce`.

    Raises:
        ValueError: If the model is not of Keras 3, not built, or of another architecture;
            names the first mismatch. The model is then untouched.

    Example:

    >>> ticket = Ticket({"out/kernel": np.array([[True], [False]])},
    ...                 {"out/kernel": np.array([[3.0], [4.0]], np.float32)})
    >>> layer = keras.layers.Dense(1, use_bias=False, name="out")
    >>> handle = to_keras3(ticket, keras.Sequential([keras.Input((2,)), layer]))
    >>> layer.kernel.numpy().tolist()
    [[3.0], [0.0]]
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"Expected a Keras 3 model. Received: {_what(model)}. For a model of tf_keras there "
            "is `kl.tfmot.put(ticket, model)`."
        )
    target = {p: tuple(v.shape) for p, v in weights.all_weights(model).items()}
    if model.built:
        ticket = _renamed(ticket, target)
    return ticket.apply(model)


def put(ticket: Ticket, model: Any) -> None:
    """Writes a ticket into a tf_keras model: weights, and tfmot's masks if it is wrapped.

    Layers are matched as in `to_keras3`. tfmot's schedule may choose other masks when it
    next prunes: `kl.tfmot.wrap` gives one that never does. In a model without wrappers
    pruned weights are zeros that training does not keep. Optimizer slots stay as they are:
    compile anew to start from fresh ones.

    Args:
        ticket: A ticket of the same layers, of tf_keras or Keras 3.
        model: A built tf_keras model, wrapped or stripped.

    Raises:
        ValueError: If the model is not of tf_keras, not built, wrapped but without masks, of
            another architecture, or lacks a wrapper for a layer that the ticket prunes. The
            model is then untouched.

    Example:

    >>> _, tf_keras = load()
    >>> ticket = Ticket({"out/kernel": np.array([[True], [False]])},
    ...                 {"out/kernel": np.array([[3.0], [4.0]], np.float32)})
    >>> layer = tf_keras.layers.Dense(1, use_bias=False)
    >>> put(ticket, tf_keras.Sequential([tf_keras.Input((2,)), layer]))
    >>> layer.kernel.numpy().tolist()
    [[3.0], [0.0]]
    """
    _check_tf_keras(model)
    target = _weights(model)
    ticket = _renamed(ticket, {p: v.shape for p, v in target.items()})
    variables = _mask_variables(model)
    bare = [p for p, m in ticket.masks.items() if p not in variables and not m.all()]
    if variables and bare:
        raise ValueError(
            f"The ticket prunes {bare[0]!r}, and tfmot keeps no mask for it in the model "
            f"{model.name!r}. Wrap that layer too, or put the ticket into the model without "
            "wrappers (`strip_pruning`). Masks are kept for: "
            f"{list(variables)}"
        )
    for path, view in target.items():
        view.assign(ticket.weights[path])
    for path, variable in variables.items():
        alive = ticket.masks.get(path, np.ones(variable.shape, bool))
        variable.assign(np.asarray(alive, variable.dtype.as_numpy_dtype))


def _what(model: Any) -> str:
    root = type(model).__module__.partition(".")[0]
    return f"{type(model).__name__} {getattr(model, 'name', '')!r} of {root}"


def _check_tf_keras(model: Any) -> None:
    if not isinstance(model, load().keras.Model):
        raise ValueError(
            f"Expected a model of tf_keras (Keras 2). Received: {_what(model)}. For a model of "
            "Keras 3 there are `kl.Ticket.of(model, masks)` and `ticket.apply(model)`."
        )
    if not model.built or not model.weights:
        raise ValueError(
            f"The model {model.name!r} is not built: call it on a batch, or give it a "
            "`tf_keras.Input`, before a ticket crosses."
        )
    wrapped = wrappers(model)
    if wrapped and not any(wrapper.pruning_vars for wrapper in wrapped):
        raise ValueError(
            f"tfmot wraps {[w.name for w in wrapped]} of the model {model.name!r} and keeps no "
            "mask in any. Call the model on a batch if its layers are not built, wrap layers with "
            "weights, or give the model without wrappers (`strip_pruning`)."
        )


def _weights(model: Any) -> dict[Path, VariableView]:
    """The model's weights and statistics by path, without what tfmot's wrappers added."""
    added = {id(w.pruning_step) for w in wrappers(model)}
    for wrapper in wrappers(model):
        for _, mask, threshold in wrapper.pruning_vars:
            added |= {id(mask), id(threshold)}
    views = [VariableView(v, path_of(v)) for v in model.weights if id(v) not in added]
    named: dict[Path, Any] = weights.name(views)
    return named


def _mask_variables(model: Any) -> dict[Path, Any]:
    """Path of a weight to the variable in which tfmot keeps its mask, in the model's order."""
    masks = {id(w): m for wrapper in wrappers(model) for w, m, _ in wrapper.pruning_vars}
    found = {path: masks.get(id(view.variable)) for path, view in _weights(model).items()}
    return {path: mask for path, mask in found.items() if mask is not None}


def _prunable(model: Any) -> list[Path]:
    trainable = {id(v) for v in model.trainable_weights} - set(embeddings(model))
    return [
        path
        for path, view in _weights(model).items()
        if id(view.variable) in trainable and len(view.shape) >= 2 and view.name != "bias"
    ]


def _renamed(ticket: Ticket, target: Shapes) -> Ticket:
    """The ticket under the paths of `target`."""
    source = {path: value.shape for path, value in ticket.weights.items()}
    new = _by_name(source, target) or in_order(source, target)
    masks: Masks = {new[path]: mask for path, mask in ticket.masks.items()}
    values = {new[path]: value for path, value in ticket.weights.items()}
    return Ticket(
        {path: masks[path] for path in target if path in masks},
        {path: values[path] for path in target},
        ticket.metadata,
    )


def _by_name(source: Shapes, target: Shapes) -> dict[Path, Path] | None:
    """Matches layers by name, one to one, and within a layer by the weights' names or order.

    Keras 3 may put the model's name before the layer's: `a/dense` and `dense` are one layer.
    None if this does not match all.
    """
    of_source, of_target = _layers(source), _layers(target)
    found: dict[Path, Path] = {}
    for layer, paths in of_source.items():
        same = [t for t in of_target if _ends(t, layer) or _ends(layer, t)]
        if len(same) != 1:
            return None
        others = of_target[same[0]]
        if {p.rpartition("/")[2] for p in paths} == {p.rpartition("/")[2] for p in others}:
            paths, others = (sorted(x, key=lambda p: p.rpartition("/")[2]) for x in (paths, others))
        if [source[p] for p in paths] != [target[p] for p in others]:
            return None
        found |= dict(zip(paths, others, strict=True))
    return found if len(set(found.values())) == len(source) == len(target) else None


def _layers(paths: Shapes) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in paths:
        found.setdefault(path.rpartition("/")[0], []).append(path)
    return found


def _ends(path: str, end: str) -> bool:
    return path == end or path.endswith(f"/{end}")
