"""The loss along random directions around a network."""

import numbers
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import keras
import numpy as np
from numpy.typing import NDArray

from keras_lottery import enforcement
from keras_lottery import weights as keras_weights
from keras_lottery.analysis.batches import Data
from keras_lottery.analysis.connectivity import unit_axes
from keras_lottery.analysis.evaluating import Evaluation
from keras_lottery.analysis.points import (
    Computed,
    OnPoint,
    given_or_new,
    measure_all,
    wide,
)
from keras_lottery.analysis.recorders import Metric
from keras_lottery.analysis.values import Values, Weights, as_masks, as_values
from keras_lottery.masks import Array, Masks, Path
from keras_lottery.settings import check_integer
from keras_lottery.tickets import Ticket

_NORMALIZATIONS = ("filter", "layer", "none")
Direction = dict[Path, NDArray[np.float32]]


@dataclass(frozen=True)
class Landscape:
    """A metric on a line or a plane around a network.

    Attributes:
        axes: One or two float64 arrays of steps along the directions; 0 is the network.
        values: Dict of part of the data to float64 array `(n,)` or `(n, m)` of the metric;
            `values[part][i, j]` is at `axes[0][i]`, `axes[1][j]`.
        metric: The metric's name.
        normalization: `"filter"`, `"layer"` or `"none"`.
        center: What stands in the middle.

    Source: Li et al., 1712.09913.
    """

    axes: tuple[NDArray[np.float64], ...]
    values: Mapping[str, NDArray[np.float64]]
    metric: str
    normalization: str
    center: str


def landscape(
    model: keras.Model,
    data: Data | Mapping[str, Data] | None = None,
    weights: Weights | None = None,
    masks: Masks | None = None,
    dimensions: int = 1,
    reach: float = 1.0,
    points: int = 21,
    normalization: str = "filter",
    seed: int = 0,
    metric: Metric = "loss",
    batchnorm: str = "interpolate",
    evaluation: Evaluation | None = None,
    batch_size: int = 256,
    recompute_on: Data | None = None,
    center: str | None = None,
    verbose: int = 0,
    on_point: OnPoint | None = None,
) -> Landscape:
    """The loss along one or two random directions around a network or ticket.

    Pruned weights, biases, the parameters and statistics of normalizations and what does not
    train stay where they are. The model is afterwards as it was.

    Args:
        model: A built Keras model; compiled if the metric is `"loss"`.
        data: What to measure on, see `Evaluation`.
        weights: The network in the middle, as `error_barrier` takes it. Default: the model's.
        masks: Dict of path to bool array, True = alive. Default: those of the ticket, if
            `weights` is one, else the enforced ones, else everything is alive.
        dimensions: 1 (default) or 2.
        reach: The largest step, above 0; a step of 1 (default) along a normalized direction is
            as long as the weights themselves.
        points: Points on each axis, 2 or more; the middle is one of them if odd. Default: 21.
        normalization: `"filter"` (default) gives each filter of a direction, which is all that
            leads to one output unit of the layer, the norm of the weight's, `"layer"` each
            weight array as a whole, `"none"` leaves the Gaussian numbers as drawn.
        seed: Integer, 0 (default) or more, that draws the directions.
        metric: See `Evaluation`. Default: `"loss"`, the compiled loss.
        batchnorm: `"interpolate"` (default) keeps the statistics, `"recompute"` measures them
            anew at each point; see `Evaluation`.
        evaluation: One of this model, in place of `data`, `metric`, `batchnorm`, `batch_size` and
            `recompute_on`: one to use again.
        batch_size: Examples in a batch, where the data are arrays. Default: 256.
        recompute_on: Data for `batchnorm="recompute"`.
        center: What to call the middle. Default: `"ticket"`, `"weights"` or `"model"`, by what
            is given.
        verbose: 0 (default) prints nothing, 1 a progress bar, 2 one line at the end.
        on_point: Called as `on_point(index, {part: value})` after each point.

    Returns:
        The values and the axes.

    Raises:
        ValueError: If an option is out of range, if the weights or masks do not fit the model,
            if no weight can move, or as `Evaluation` raises it.
        TypeError: If `model` is no Keras model or `weights` are of another form.

    Source: Li et al., 1712.09913, section 4.

    Example:

    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(loss="mse")
    >>> data = (np.array([[1.0]]), np.array([[1.0]]))
    >>> middle = [np.array([[1.0]]), np.array([0.0])]
    >>> around = landscape(model, data, middle, points=3)
    >>> around.values["data"].tolist()
    [1.0, 0.0, 1.0]
    """
    _check(dimensions, reach, points, normalization, seed)
    middle = _middle(model, weights)
    alive = _alive(model, weights, masks)
    directions = [
        direction(model, middle, alive, normalization, (seed, i)) for i in range(dimensions)
    ]
    evaluation = given_or_new(
        model,
        evaluation,
        data,
        lambda: Evaluation(model, data, metric, batch_size, batchnorm, recompute_on),  # type: ignore[arg-type]
    )
    axis = np.linspace(-reach, reach, points)
    if points % 2:
        axis[points // 2] = 0.0
    found = measure_all(
        evaluation, _points(middle, directions, axis), points**dimensions, verbose, on_point
    )
    values = {part: v.reshape((points,) * dimensions) for part, v in found.items()}
    named = center or ("model" if weights is None else _kind(weights))
    return Landscape((axis,) * dimensions, values, evaluation.metric, normalization, named)


def direction(
    model: keras.Model,
    middle: Values,
    masks: Masks,
    normalization: str = "filter",
    seed: int | tuple[int, ...] = 0,
) -> Direction:
    """A random direction: one Gaussian array for each weight that moves.

    Weights are drawn in the model's order, so that equal models of other names get the same.

    Args:
        model: A built Keras model.
        middle: Its weights, dict of path to array.
        masks: Dict of path to bool array; weights without one are alive.
        normalization: See `landscape`.
        seed: Integer or tuple of them.

    Returns:
        Dict of path to float32 array, 0 where pruned; trainable weights of rank 2 or more
        that are not called `bias`.

    Raises:
        ValueError: If no weight can move.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> path = model.layers[0].kernel.path
    >>> found = direction(model, {path: np.array([[3.0], [4.0]])}, {})
    >>> round(float(np.linalg.norm(found[path])), 5)
    5.0
    """
    rng = np.random.default_rng(seed)
    found: Direction = {}
    for path, units in _moving(model).items():
        drawn = rng.standard_normal(middle[path].shape, np.float32)
        mask = masks.get(path, np.ones((), bool))
        drawn, weight = drawn * mask, wide(middle[path]) * mask
        if normalization != "none":
            drawn = _normalized(drawn, weight, units if normalization == "filter" else ())
        found[path] = np.asarray(drawn, np.float32)
    if not any(d.any() for d in found.values()):
        raise ValueError(
            f"No weight of the model {model.name!r} can move: a direction is drawn for alive "
            "trainable weights of rank 2 or more that are not called `bias`, and "
            f"normalization={normalization!r} makes it 0 where they are 0. Received: {list(found)}"
        )
    return found


def _normalized(
    drawn: NDArray[np.floating], weight: NDArray[np.floating], kept: tuple[int, ...]
) -> NDArray[np.floating]:
    """Each slice at the axes that are kept gets the norm of the weight's."""
    axes = tuple(set(range(drawn.ndim)) - set(kept))
    has, should = (np.sqrt(np.sum(v * v, axes, keepdims=True)) for v in (drawn, weight))
    return np.asarray(drawn * np.divide(should, has, out=np.zeros_like(should), where=has > 0))


def _moving(model: keras.Model) -> dict[Path, tuple[int, ...]]:
    """The weights that move, with the axes that are their layer's output units."""
    trained = {id(v) for v in model.trainable_variables}
    owners = keras_weights.owners(model)
    return {
        p: unit_axes(len(v.shape), owners.get(id(v), [None])[0], v.name)
        for p, v in keras_weights.all_weights(model).items()
        if id(v) in trained and len(v.shape) >= 2 and v.name != "bias"
    }


def _points(middle: Values, directions: list[Direction], axis: Array) -> Iterator[Values]:
    for steps in product(axis.tolist(), repeat=len(directions)):
        yield _moved(middle, directions, steps)


def _moved(middle: Values, directions: list[Direction], steps: tuple[float, ...]) -> Values:
    def compute(path: Path) -> Array:
        weight = middle[path]
        if path not in directions[0]:
            return weight
        moved = wide(weight)
        for step, move in zip(steps, directions, strict=True):
            moved = moved + step * move[path]
        return np.asarray(moved).astype(weight.dtype)

    return Computed(list(middle), compute)


def _middle(model: keras.Model, given: Weights | None) -> Values:
    return as_values(model, model if given is None else given)


def _alive(model: keras.Model, given: Weights | None, masks: Masks | None) -> Masks:
    if masks is None and isinstance(given, Ticket):
        return as_masks(model, given)
    if masks is None:
        return enforcement.enforced_masks(model) or {}
    return as_masks(model, masks)


def _kind(given: Weights) -> str:
    return "ticket" if isinstance(given, Ticket) else "weights"


def _check(dimensions: int, reach: float, points: int, normalization: str, seed: int) -> None:
    for name, value, least in (("dimensions", dimensions, 1), ("points", points, 2)):
        check_integer(name, value, least)
    check_integer("seed", seed, least=0)
    if dimensions > 2:
        raise ValueError(f"`dimensions` must be 1 or 2. Received: {dimensions!r}")
    number = isinstance(reach, numbers.Real) and not isinstance(reach, bool)
    if not (number and np.isfinite(reach) and reach > 0):
        raise ValueError(f"`reach` must be a number above 0. Received: {reach!r}")
    if normalization not in _NORMALIZATIONS:
        raise ValueError(
            f"`normalization` must be one of {_NORMALIZATIONS}. Received: {normalization!r}"
        )
