"""One model measured under many weights, by one compiled step."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lottery import weights
from keras_lottery.analysis.batches import Batches, Data, as_parts
from keras_lottery.analysis.recorders import Metric, Recorder
from keras_lottery.analysis.values import Values, check_built
from keras_lottery.masks import Array, Path

_BATCHNORM = ("interpolate", "recompute")


class Evaluation:
    """Measures a model under any weights; the model is afterwards as it was.

    The step is traced once for full batches and at most once more for a smaller last one,
    whatever the number of weights measured; so is, for `"recompute"` of a model that has
    BatchNormalization, the step that measures the statistics. Data are gone through batch by
    batch. Stateful recurrent layers begin each part of the data with states of zero.

    Args:
        model: A built Keras model, masked or not; compiled if the metric is `"loss"`. Its
            optimizer, compiled metrics and masks are left alone.
        data: Tuple `(x, y)` or `(x, y, sample_weight)` of arrays, a `tf.data.Dataset` of such
            batches or a `keras.utils.PyDataset`; or a dict of name to such data, as
            `{"train": ..., "test": ...}`. Floats must be finite.
        metric: `"error"` (default), the classification error in [0, 1], of labels that are
            classes or one-hot; a single output is judged at 0.5, or at 0 if the model was
            compiled with a loss of `from_logits=True` or a hinge loss, whose labels may be -1
            and 1. `"accuracy"` is 1 - error, `"loss"` what `model.evaluate` calls loss. Or the
            name of a Keras metric, a `keras.losses.Loss` (its mean over the examples), a
            `keras.metrics.Metric`, or a callable `(y, prediction) -> one value an example`.
        batch_size: Examples in a batch, where the data are arrays. Default: 256.
        batchnorm: `"interpolate"` (default) takes the statistics of BatchNormalization as
            given; `"recompute"` measures them anew for each weights that are put in: the
            average of the batches' means and variances in training mode.
        recompute_on: Data for `"recompute"`. Default: the part `"train"`, or the only part.
        larger_is_better: Whether a large value of the metric is good. Default: known for
            `"accuracy"`, Keras's metrics and what is called `...accuracy`, False for all else.

    Attributes:
        metric: The metric's name.
        parts: The names of the data; data without a name are called `"data"`.
        traces: How often a step has been traced so far.

    Raises:
        ValueError: If data are empty, endless, of different lengths or not finite, or if the
            metric is unknown (the message lists the valid ones).
        TypeError: If `model` is no Keras model, or data are of another form or a generator.

    Source: Frankle et al., 1912.05671, section 2.

    Example:

    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> kernel, bias = (v.path for v in model.weights)
    >>> evaluation = Evaluation(model, (np.array([[1.0], [-1.0]]), np.array([1, 0])))
    >>> evaluation({kernel: np.array([[-1.0]]), bias: np.array([0.5])})
    {'data': 1.0}
    """

    def __init__(
        self,
        model: keras.Model,
        data: Data | Mapping[str, Data],
        metric: Metric = "error",
        batch_size: int = 256,
        batchnorm: str = "interpolate",
        recompute_on: Data | None = None,
        larger_is_better: bool | None = None,
    ):
        if batchnorm not in _BATCHNORM:
            raise ValueError(f"`batchnorm` must be one of {_BATCHNORM}. Received: {batchnorm!r}")
        check_built(model)
        self._model = model
        self._recorder = Recorder(model, metric, larger_is_better)
        self._data = as_parts(data, batch_size)
        self._layers = _normalizations(model) if batchnorm == "recompute" else []
        self._pass = self._recompute_data(recompute_on, batch_size) if self._layers else None
        self._recurrent = _stateful(model)
        self._checked: set[str] = set()
        self._kept: list[dict[Path, Array]] = []
        self._weights = weights.all_weights(model)
        self.traces = 0
        self._step = self._compile(self._one_step)
        self._statistics = self._compile(self._one_statistics)

    @property
    def model(self) -> keras.Model:
        """The model that is measured."""
        return self._model

    @property
    def metric(self) -> str:
        """The metric's name."""
        return self._recorder.name

    @property
    def larger_is_better(self) -> bool:
        """Whether the metric is known to be better when it is larger, as an accuracy."""
        return self._recorder.larger_is_better

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the data."""
        return tuple(self._data)

    def __call__(self, values: Values | None = None) -> dict[str, float]:
        """The metric on each part of the data, under `values`.

        Within `with evaluation:` the model keeps the values until the end of the block, which
        saves one copy of the weights a call.

        Args:
            values: Dict of path to array, of weights and statistics; variables without one
                stay as they are. `None`: the model as it is.

        Returns:
            Dict of the part's name to the metric.

        Raises:
            ValueError: If a path is unknown, or labels do not fit the predictions, in their
                shape or as numbers of classes.
        """
        if values is None:
            return self._measure()
        unknown = [p for p in values if p not in self._weights]
        if unknown:
            raise ValueError(
                f"The model {self._model.name!r} has no weight {unknown[0]!r}. "
                f"Its weights: {list(self._weights)}"
            )
        if not self._kept:
            with self:
                return self(values)
        weights.write(self._weights, values)
        if self._pass is not None:
            self._recompute(self._pass)
        return self._measure()

    def __enter__(self) -> "Evaluation":
        self._kept.append(weights.read(weights.all_variables(self._model)))
        return self

    def __exit__(self, *exc: object) -> None:
        weights.write(weights.all_variables(self._model), self._kept.pop())

    def _measure(self) -> dict[str, float]:
        metric, measured = self._recorder.metric, {}
        with _unchanged([*self._model.metrics_variables, *metric.variables, *self._states()]):
            for part, batches in self._data.items():
                metric.reset_state()
                for x, y, weight in self._from_zero(batches):
                    self._step(x, y, weight)
                    if part not in self._checked:
                        self._recorder.check(y, weight)
                self._checked.add(part)
                measured[part] = self._recorder.result()
        return measured

    def _from_zero(self, batches: Batches) -> Batches:
        """The batches, for recurrent layers that remember nothing of others."""
        for layer in self._recurrent:
            layer.reset_state()
        return batches

    def _states(self) -> list[Any]:
        found = keras.tree.flatten([layer.states for layer in self._recurrent])
        return [state for state in found if state is not None]

    def _one_step(self, x: Any, y: Any, weight: Any) -> None:
        self._recorder.update(x, y, weight, self._model(x, training=False))

    def _recompute(self, batches: Batches) -> None:
        """The cumulative average of the batches' statistics; no other state changes."""
        statistics = [
            v for layer in self._layers for v in (layer.moving_mean, layer.moving_variance)
        ]
        ours = {id(v) for v in [*statistics, *self._model.trainable_variables]}
        others = [v for v in self._model.variables if id(v) not in ours] + self._states()
        n, totals = 0, [np.zeros(v.shape) for v in statistics]
        with _unchanged(others):
            for x, y, _ in self._from_zero(batches):
                size = len(keras.tree.flatten(y)[0])
                found = self._statistics(x)
                totals = [t + size * f.numpy() for t, f in zip(totals, found, strict=True)]
                n += size
        for variable, total in zip(statistics, totals, strict=True):
            variable.assign((total / n).astype(variable.dtype))

    def _one_statistics(self, x: Any) -> list[tf.Tensor]:
        """Without momentum, one call in training mode leaves the statistics of its batch."""
        momenta = [layer.momentum for layer in self._layers]
        try:
            for layer in self._layers:
                layer.momentum = 0.0
            self._model(x, training=True)
        finally:
            for layer, momentum in zip(self._layers, momenta, strict=True):
                layer.momentum = momentum
        return [
            tf.cast(tf.convert_to_tensor(v), tf.float64)
            for layer in self._layers
            for v in (layer.moving_mean, layer.moving_variance)
        ]

    def _compile(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*batch: Any) -> Any:
            self.traces += 1
            return step(*batch)

        if getattr(self._model, "run_eagerly", False):
            return step
        compiled: Callable[..., Any] = tf.function(counted, autograph=False, reduce_retracing=True)
        return compiled

    def _recompute_data(self, given: Data | None, batch_size: int) -> Batches:
        if given is not None:
            return as_parts({"recompute_on": given}, batch_size)["recompute_on"]
        if "train" not in self._data and len(self._data) > 1:
            raise ValueError(
                "batchnorm='recompute' needs to know the data to measure the statistics on. "
                f"Name a part 'train' or pass `recompute_on`. Received: the parts {self.parts}"
            )
        return self._data.get("train") or next(iter(self._data.values()))


def _normalizations(model: keras.Model) -> list[Any]:
    found = weights.sublayers(model)
    return [layer for layer in found if isinstance(layer, keras.layers.BatchNormalization)]


def _stateful(model: keras.Model) -> list[Any]:
    found = weights.sublayers(model)
    return [layer for layer in found if isinstance(layer, keras.layers.RNN) and layer.stateful]


@contextmanager
def _unchanged(variables: list[Any]) -> Iterator[None]:
    """Whatever happens in the block, these variables are afterwards as before."""
    before = [variable.numpy() for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
