"""What is measured: a name, loss, metric or function as a running mean over batches."""

import inspect
import re
from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import tensorflow as tf

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

    Attributes:
        name: Of the metric.
        metric: The Keras metric that holds the running value.
        larger_is_better: True of accuracies, areas under curves and their like, as Keras names
            them; False of all else.
    """

    def __init__(self, model: keras.Model, metric: Metric):
        self._model = model
        self._measure: Callable[[Any, Any], Any] | None = None
        self.name = metric if isinstance(metric, str) else _name(metric)
        self.metric = keras.metrics.Mean(name="mean", dtype="float64")
        self._is_loss = metric == "loss"
        self._one_output = True
        if self._is_loss:
            _check_compiled(model)
        elif isinstance(metric, str) and metric in ("error", "accuracy"):
            self._measure = _judge(metric, 0.0 if _from_logits(model) else 0.5)
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
        kind = type(self.metric).__name__
        self.larger_is_better = metric == "accuracy" or bool(_LARGER_IS_BETTER.search(kind))

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

    def result(self) -> float:
        """The value over all batches since `metric.reset_state()`."""
        value = self.metric.result()
        if isinstance(value, dict) or len(value.shape):
            raise ValueError(
                f"Expected a metric of one number. Received: {self.name!r}, which gives several. "
                "Choose an average, or pass a callable `(y, prediction) -> one value an example`."
            )
        return float(value)


def _judge(metric: str, threshold: float) -> Callable[[Any, Any], Any]:
    def wrong(y: Any, prediction: Any) -> Any:
        return tf.cast(_wrong(y, prediction, threshold), tf.float64)

    return wrong if metric == "error" else lambda y, prediction: 1.0 - wrong(y, prediction)


def _wrong(y: Any, prediction: Any, threshold: float) -> tf.Tensor:
    """Whether each example is misjudged; a NaN is a misjudgement."""
    y, prediction = tf.convert_to_tensor(y), tf.convert_to_tensor(prediction)
    if prediction.shape.rank == 1:
        prediction = prediction[:, None]
    units, sides = prediction.shape[-1], prediction.shape[1:-1]
    sparse = y.shape[1:].is_compatible_with(sides)
    column = y.shape[1:].is_compatible_with([*sides, 1])
    one_hot = y.shape[1:].is_compatible_with([*sides, units])
    if not (sparse or column or one_hot) or not (
        y.dtype.is_floating or y.dtype.is_integer or y.dtype.is_bool
    ):
        raise ValueError(
            f"Expected labels of shape {('n', *sides)} or one-hot ones of shape "
            f"{('n', *sides, units)}. Received: {y.dtype.name} of shape {('n', *y.shape[1:])}."
        )
    invalid = tf.reduce_any(tf.math.is_nan(prediction), axis=-1)
    if units == 1:
        label, judged = y > 0 if y.dtype != tf.bool else y, prediction > threshold
        differ = (tf.squeeze(label, -1) if not sparse else label) != tf.squeeze(judged, -1)
    elif one_hot and not sparse:
        differ = tf.argmax(tf.cast(y, tf.float32), -1) != tf.argmax(prediction, -1)
    else:
        label = tf.cast(y if sparse else tf.squeeze(y, -1), tf.int64)
        differ = label != tf.argmax(prediction, -1)
    return differ | invalid


def _from_logits(model: keras.Model) -> bool:
    return bool(getattr(getattr(model, "loss", None), "from_logits", False))


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
