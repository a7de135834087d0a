"""What is measured: a name, loss, metric or function as a running mean over batches."""

import inspect
import re
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from keras_lottery.analysis.judging import Judge

Metric: TypeAlias = str | keras.losses.Loss | keras.metrics.Metric | Callable[[Any, Any], Any]

_LARGER_IS_BETTER = re.compile(
    r"^(accuracy|auc|precision|recall|f1|fbeta|r2|sensitivity|specificity|cosine|pearson"
    r"|concordance|true)|iou$|accuracy$",
    re.IGNORECASE,
)


class Recorder:
    """Takes batches, gives one number.

    Args:
        model: The model, for its compiled loss.
        metric: See `Evaluation`.
        larger_is_better: See `Evaluation`.

    Attributes:
        name: Of the metric.
        metric: The Keras metric that holds the running value.
        larger_is_better: As given, else True of accuracies, areas under curves and their like,
            as Keras names them, and of what is called `...accuracy`; False of all else.
    """

    def __init__(self, model: keras.Model, metric: Metric, larger_is_better: bool | None = None):
        self._model = model
        self._measure: Callable[[Any, Any], Any] | None = None
        self.name = metric if isinstance(metric, str) else _name(metric)
        self.metric = keras.metrics.Mean(name="mean", dtype="float64")
        self._is_loss = metric == "loss"
        self._one_output = True
        if self._is_loss:
            _check_compiled(model)
        elif isinstance(metric, str) and metric in ("error", "accuracy"):
            self._measure = Judge(model, metric)
        elif isinstance(metric, str):
            self.metric = _named(metric)
        elif isinstance(metric, keras.metrics.Metric):
            self.metric = metric
        elif isinstance(metric, keras.losses.Loss):
            self._measure = metric.call
        elif callable(metric) and not inspect.isclass(metric):
            self._measure, self._one_output = metric, False
        else:
            raise ValueError(_unknown(metric))
        if larger_is_better is None:
            subject = metric if self._measure is not None else self.metric
            larger_is_better = metric == "accuracy" or _is_better_when_larger(subject)
        self.larger_is_better = larger_is_better

    def update(self, x: Any, y: Any, weight: Any, prediction: Any) -> None:
        """Takes one batch in."""
        if self._is_loss:
            loss = self._model.compute_loss(x, y, prediction, weight, training=False)
            self.metric.update_state(loss, tf.shape(keras.tree.flatten(y)[0])[0])
            return
        if self._one_output:
            _check_single(self.name, y, prediction)
        if self._measure is None:
            self.metric.update_state(y, prediction, weight)
        else:
            values = tf.convert_to_tensor(self._measure(y, prediction))
            _check_values(self.name, values)
            self.metric.update_state(values, weight)

    def check(self, y: Any, weight: Any) -> None:
        """Raises a `ValueError` if labels of a batch that was taken in are no classes."""
        if isinstance(self._measure, Judge):
            self._measure.check(y, weight)

    def result(self) -> float:
        """The value over all batches since `metric.reset_state()`."""
        value = self.metric.result()
        if isinstance(value, dict) or len(value.shape):
            raise ValueError(
                f"Expected a metric of one number. Received: {self.name!r}, which gives several. "
                "Choose an average, or pass a callable `(y, prediction) -> one value an example`."
            )
        return float(value)


def _is_better_when_larger(metric: Any) -> bool:
    """Keras's metrics and their subclasses are known by their classes, others by their names."""
    classes = [kind.__name__ for kind in type(metric).__mro__]
    if isinstance(metric, keras.metrics.Metric) and any(map(_LARGER_IS_BETTER.search, classes)):
        return True
    return any(name.lower().endswith("accuracy") for name in (_name(metric), _wrapped(metric)))


def _wrapped(metric: Any) -> str:
    """The name of the function in a `MeanMetricWrapper`."""
    if type(metric) is not keras.metrics.MeanMetricWrapper:
        return ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return str(metric.get_config()["fn"]["config"])
        except TypeError:
            return ""


def _check_compiled(model: keras.Model) -> None:
    if not model.compiled:
        raise ValueError(
            f"The metric 'loss' is the model's compiled loss, and {model.name!r} is not compiled. "
            "Compile it, or pass a `keras.losses.Loss`."
        )


def _check_single(name: str, y: Any, prediction: Any) -> None:
    several = [w for w, v in (("outputs", prediction), ("labels", y)) if keras.tree.is_nested(v)]
    if several:
        raise ValueError(
            f"The metric {name!r} judges one output. Received: several {' and '.join(several)}. "
            "Use metric='loss', or a callable `(y, prediction) -> one value an example`."
        )


def _check_values(name: str, values: tf.Tensor) -> None:
    if values.shape.rank == 0:
        raise ValueError(
            f"Expected one value an example from the metric {name!r}. Received: a single number. "
            "Leave the mean over the examples out."
        )


def _named(name: str) -> keras.metrics.Metric:
    try:
        found = keras.metrics.get(name)
    except (ValueError, TypeError) as error:
        raise ValueError(_unknown(name)) from error
    if isinstance(found, keras.metrics.Metric):
        return found
    return keras.metrics.MeanMetricWrapper(found, name=name)


def _name(metric: Any) -> str:
    return str(getattr(metric, "name", None) or getattr(metric, "__name__", type(metric).__name__))


def _unknown(metric: Any) -> str:
    names = [
        name for name, found in vars(keras.metrics).items()
        if inspect.isclass(found) and issubclass(found, keras.metrics.Metric)
    ]  # fmt: skip
    return (
        "`metric` must be 'error', 'accuracy', 'loss', a `keras.losses.Loss`, a "
        "`keras.metrics.Metric`, a callable `(y, prediction) -> one value an example`, or the "
        f"name of a Keras metric: {', '.join(sorted(names))}. Received: {metric!r}"
    )
