"""The border to Keras: which variables are prunable, by what path, and their values.

Paths are Keras paths (`"sequential/dense/kernel"`). Where a model holds several
variables of one path (sublayers of a subclassed model that share a name), the
second is called `"path:2"`, and so on, in the model's order.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_lottery.masks import Array, Path

Filters = str | Sequence[str] | Callable[[Path, keras.Variable], bool]
Variables = dict[Path, keras.Variable]
_DIVISOR = "accumulator"

# Layers whose own variables are not prunable by default, third-party ones included.
_NOT_PRUNED = re.compile(r"(Embedding|Normalization|Norm)$")


def name(variables: Sequence[keras.Variable]) -> Variables:
    """Gives every variable a unique path, in order; a shared variable counts once."""
    named: Variables = {}
    seen: set[int] = set()
    for variable in variables:
        if id(variable) in seen:
            continue
        seen.add(id(variable))
        path, n = variable.path, 1
        while path in named:
            n += 1
            path = f"{variable.path}:{n}"
        named[path] = variable
    return named


def check_keras_3(model: Any) -> None:
    """Raises a `ValueError` if `model` is one of tf_keras (Keras 2)."""
    if any(cls.__module__.partition(".")[0] == "tf_keras" for cls in type(model).__mro__):
        raise ValueError(
            "Expected a model of Keras 3 (`import keras`). Received: "
            f"{getattr(model, 'name', model)!r} of tf_keras (Keras 2). For one wrapped by tfmot "
            "there is `kl.tfmot.LotteryCallback`."
        )


def all_variables(model: keras.Model) -> Variables:
    """Everything training may change in a model: weights, statistics, random seeds."""
    check_keras_3(model)
    return name(model.variables)


def all_weights(model: keras.Model) -> Variables:
    """The model's weights and statistics by path, without random seeds."""
    kept = {id(v) for v in model.weights}
    return {p: v for p, v in all_variables(model).items() if id(v) in kept}


def sublayers(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """The layer and every layer below it, found through its attributes."""
    seen: set[int] = set()
    stack: list[Any] = [layer]
    while stack:
        item = stack.pop()
        if isinstance(item, keras.layers.Layer) and id(item) not in seen:
            seen.add(id(item))
            yield item
            stack.extend(vars(item).values())
        elif isinstance(item, (list, tuple, set)):
            stack.extend(item)
        elif isinstance(item, Mapping):
            stack.extend(item.values())


def owned(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The variables that a layer itself holds, in the order of its attributes."""
    held: dict[int, keras.Variable] = {}
    for value in vars(layer).values():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(item, keras.Variable):
                held.setdefault(id(item), item)
    return list(held.values())


def owners(model: keras.Model) -> dict[int, list[keras.layers.Layer]]:
    """Variable id to the layers that hold it."""
    found: dict[int, list[keras.layers.Layer]] = {}
    for layer in sublayers(model):
        for variable in owned(layer):
            found.setdefault(id(variable), []).append(layer)
    return found


def _spared(layer: keras.layers.Layer) -> bool:
    return any(_NOT_PRUNED.search(cls.__name__) for cls in type(layer).__mro__)


def prunable(model: keras.Model, filters: Filters | None = None) -> Variables:
    """The variables of `model` that pruning may touch, by path.

    By default: trainable weights of rank 2 or more that are not called `bias` and do
    not belong to an embedding or a normalization. A regex, or a list of them, chooses
    by `re.search` among the trainable weights of rank 2 or more not called `bias`
    (embeddings included); a callable `(path, variable) -> bool` chooses among all
    trainable variables.

    Raises:
        ValueError: If the model is not built, or nothing is selected.

    Example:

    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="out")])
    >>> [tuple(v.shape) for v in prunable(model).values()]
    [(3, 2)]
    """
    check_keras_3(model)
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} has no weights yet because its input shape is unknown. "
            "Add a `keras.Input`, call `model.build(input_shape)` or call it on a batch first."
        )
    trainable = {id(v) for v in model.trainable_variables}
    candidates = {p: v for p, v in all_variables(model).items() if id(v) in trainable}
    chosen = {p: v for p, v in candidates.items() if _selector(model, filters)(p, v)}
    if not chosen:
        what = "nothing" if filters is None else f"`filters={filters!r}` selects nothing that"
        raise ValueError(
            f"In the model {model.name!r} {what} can be pruned. Its trainable variables are: "
            f"{list(candidates)}"
        )
    return chosen


def _selector(
    model: keras.Model, filters: Filters | None
) -> Callable[[Path, keras.Variable], bool]:
    if callable(filters):
        return filters
    if filters is None:
        held_by = owners(model)
        return lambda path, v: (
            _is_kernel(v)
            and not (held_by.get(id(v)) and all(_spared(layer) for layer in held_by[id(v)]))
        )
    return lambda path, v: matches(path, v, filters)


def matches(path: Path, variable: Any, patterns: str | Sequence[str] | None) -> bool:
    """Whether a variable has rank 2 or more, is no bias, and a pattern, if any, finds its path.

    Example:

    >>> kernel = keras.Variable(np.zeros((2, 2)), name="kernel")
    >>> matches("out/kernel", kernel, ["^out", "^in"]), matches("out/kernel", kernel, "in")
    (True, False)
    """
    if patterns is None:
        return _is_kernel(variable)
    regexes = [patterns] if isinstance(patterns, str) else patterns
    return _is_kernel(variable) and any(re.search(regex, path) for regex in regexes)


def _is_kernel(variable: keras.Variable) -> bool:
    return len(variable.shape) >= 2 and variable.name != "bias"


def slots(optimizer: keras.Optimizer, variables: Variables) -> dict[Path, Variables]:
    """The optimizer's variables that mirror each variable in shape, by path and name.

    Keras calls them `<variable path with _>_<slot>`; the longest matching path wins, and
    variables of one path take slots of one name in their order. Accumulators of squared
    gradients are left out: Ftrl divides by theirs, which begin above zero. Pass all variables
    that the optimizer may know, or one could be given the slots of another.
    """
    prefixes = {p: v.path.replace("/", "_") + "_" for p, v in variables.items()}
    found: dict[Path, Variables] = {p: {} for p in variables}
    for slot in optimizer.variables:
        fits = [p for p, v in variables.items() if _mirrors(slot, v, prefixes[p])]
        longest = max((len(prefixes[p]) for p in fits), default=0)
        for path in fits:
            kind = slot.name[len(prefixes[path]) :]
            if len(prefixes[path]) == longest and kind not in found[path]:
                if kind != _DIVISOR:
                    found[path][kind] = slot
                break
    return found


def _mirrors(slot: keras.Variable, variable: keras.Variable, prefix: str) -> bool:
    return slot.name.startswith(prefix) and tuple(slot.shape) == tuple(variable.shape)


def read(variables: Variables) -> dict[Path, Array]:
    """Copies of the variables' values as NumPy arrays."""
    return {p: v.numpy() for p, v in variables.items()}


def write(variables: Variables, values: Mapping[Path, Array]) -> None:
    """Assigns `values[path]` to each variable that has one."""
    for path, variable in variables.items():
        if path in values:
            variable.assign(values[path])


def not_finite(values: Mapping[Path, Array]) -> list[Path]:
    """Paths whose values hold a NaN or an Inf."""
    return [
        p for p, v in values.items()
        if not np.issubdtype(v.dtype, np.integer) and v.dtype != bool and not np.isfinite(v).all()
    ]  # fmt: skip
