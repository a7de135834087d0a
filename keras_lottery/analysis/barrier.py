"""The error along the straight line between two networks."""

from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from keras_lottery.analysis.batches import Data
from keras_lottery.analysis.evaluating import Evaluation
from keras_lottery.analysis.points import (
    Computed,
    OnPoint,
    given_or_new,
    is_float,
    measure_all,
    wide,
)
from keras_lottery.analysis.recorders import Metric
from keras_lottery.analysis.values import Values, Weights, as_values
from keras_lottery.masks import Array, Path
from keras_lottery.settings import check_integer

STABLE = 0.02


@dataclass(frozen=True)
class Barrier:
    """A metric along the line from one network to another.

    Attributes:
        alphas: Float64 array `(points,)` in [0, 1]: 0 is the first network, 1 the second.
        values: Dict of part of the data to float64 array `(points,)` of the metric.
        metric: The metric's name.
        larger_is_better: True of an accuracy and its like; the barrier is then a valley.

    Source: Frankle et al., 1912.05671, section 2.

    Example:

    >>> Barrier(np.array([0, 0.5, 1]), {"test": np.array([0.1, 0.5, 0.3])}, "error").heights
    {'test': 0.3}
    """

    alphas: NDArray[np.float64]
    values: Mapping[str, NDArray[np.float64]]
    metric: str
    larger_is_better: bool = False

    @property
    def heights(self) -> dict[str, float]:
        """By part: the worst value on the line minus the mean of the two ends, 0 or more.

        NaN where a value on the line is NaN.
        """
        return {part: self._height(values) for part, values in self.values.items()}

    @property
    def stable(self) -> dict[str, bool]:
        """By part: whether the barrier is below 0.02, in units of the metric (2 % of error)."""
        return {part: height < STABLE for part, height in self.heights.items()}

    def _height(self, values: NDArray[np.float64]) -> float:
        worse = -values if self.larger_is_better else values
        return float(np.max(worse) - (worse[0] + worse[-1]) / 2)


def error_barrier(
    model: keras.Model,
    weights_a: Weights,
    weights_b: Weights,
    data: Data | Mapping[str, Data] | None = None,
    points: int = 30,
    batchnorm: str = "interpolate",
    metric: Metric = "error",
    evaluation: Evaluation | None = None,
    larger_is_better: bool | None = None,
    batch_size: int = 256,
    recompute_on: Data | None = None,
    verbose: int = 0,
    on_point: OnPoint | None = None,
) -> Barrier:
    """The error of the networks on the straight line between two, and the barrier there.

    All float weights and statistics are interpolated, in float32 at least; whole numbers,
    bools and random seeds are those of the first network and of the model. The model, its
    masks and its optimizer are afterwards as they were. Besides the model's own weights three
    copies are held: both networks, and the model as it was.

    Args:
        model: A built Keras model of their architecture.
        weights_a: The first network: dict of path to array, a list of arrays as
            `model.get_weights()` gives it, a ticket, or a Keras model.
        weights_b: The second network.
        data: What to measure on, see `Evaluation`; `{"train": ..., "test": ...}` gives both.
        points: Evenly spaced points of the line, the two ends included; 2 or more. Default: 30.
        batchnorm: `"interpolate"` (default) or `"recompute"`, see `Evaluation`.
        metric: See `Evaluation`. Default: `"error"`, in [0, 1].
        evaluation: One of this model, in place of `data`, `batchnorm`, `metric`, `batch_size` and
            `recompute_on`: one to use again, which has its step compiled already.
        larger_is_better: Whether a large value of the metric is good. Default: as the
            `evaluation` says, see there.
        batch_size: Examples in a batch, where the data are arrays. Default: 256.
        recompute_on: Data for `batchnorm="recompute"`.
        verbose: 0 (default) prints nothing, 1 a progress bar, 2 one line at the end.
        on_point: Called as `on_point(index, {part: value})` after each point.

    Returns:
        The values along the line, with `heights` and `stable`.

    Raises:
        ValueError: If the networks are of another architecture or hold a NaN, if `points` is
            below 2 or no integer, or as `Evaluation` raises it. The model is then as before.
        TypeError: If `model` is no Keras model or the networks are of another form.

    Source: Frankle et al., 1912.05671, section 2; stable is a barrier below 2 %.

    Example:

    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> a, b = [np.array([[2.0]]), np.zeros(1)], [np.array([[-2.0]]), np.zeros(1)]
    >>> squares = lambda y, prediction: (y - prediction**2)[:, 0] ** 2
    >>> data = (np.array([[1.0]]), np.array([[4.0]]))
    >>> barrier = error_barrier(model, a, b, data, points=3, metric=squares)
    >>> barrier.values["data"].tolist(), barrier.heights
    ([0.0, 16.0, 0.0], {'data': 16.0})
    """
    check_integer("points", points, least=2)
    a = as_values(model, weights_a, "weights_a")
    b = as_values(model, weights_b, "weights_b")
    evaluation = given_or_new(
        model,
        evaluation,
        data,
        lambda: Evaluation(
            model,
            data,
            metric,
            batch_size,
            batchnorm,
            recompute_on,
            larger_is_better,  # type: ignore[arg-type]
        ),
    )
    alphas = np.linspace(0.0, 1.0, points)
    line = (on_line(a, b, float(alpha)) for alpha in alphas)
    values = measure_all(evaluation, line, points, verbose, on_point)
    known = evaluation.larger_is_better if larger_is_better is None else larger_is_better
    return Barrier(alphas, values, evaluation.metric, known)


def on_line(a: Values, b: Values, alpha: float) -> Values:
    """(1 - alpha) a + alpha b, computed path by path when asked for; whole numbers are a's.

    Example:

    >>> half = on_line({"w": np.zeros(1)}, {"w": np.ones(1)}, 0.5)
    >>> half["w"].tolist()
    [0.5]
    """

    def compute(path: Path) -> Array:
        start, end = a[path], b[path]
        if not is_float(start) or alpha == 0.0:
            return start
        if alpha == 1.0:
            return end
        between = wide(start) + alpha * (wide(end) - wide(start))
        return np.asarray(between).astype(start.dtype)

    return Computed(list(a), compute)
