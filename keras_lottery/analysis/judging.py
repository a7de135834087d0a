"""Right or wrong, example by example: the metrics `"error"` and `"accuracy"`."""

import re
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

_HINGE = re.compile(r"(squared_?)?hinge", re.IGNORECASE)


class Judge:
    """Callable `(y, prediction) -> float64, one value an example`; see `Evaluation`.

    Args:
        model: The model, whose compiled loss says where a single output is judged: at 0 for
            logits and hinge losses, else at 0.5.
        metric: `"error"`, where 1 is wrong, or `"accuracy"`, where 1 is right.

    Example:

    >>> judge = Judge(keras.Sequential([keras.Input((1,))]), "error")
    >>> judge(np.array([1, 1]), np.array([[0.9], [0.2]])).numpy().tolist()
    [0.0, 1.0]
    """

    def __init__(self, model: keras.Model, metric: str):
        self._metric = metric
        self._threshold = 0.0 if _around_zero(model) else 0.5
        self._sides: Any = None
        self._units: int | None = None

    def __call__(self, y: Any, prediction: Any) -> tf.Tensor:
        """May be traced, so that labels are judged by their form only; see `check`."""
        y, prediction = tf.convert_to_tensor(y), tf.convert_to_tensor(prediction)
        if prediction.shape.rank == 1:
            prediction = prediction[:, None]
        self._sides, self._units = prediction.shape[1:-1], prediction.shape[-1]
        wrong = tf.cast(self._wrong(y, prediction), tf.float64)
        return wrong if self._metric == "error" else 1.0 - wrong

    def check(self, y: Any, weight: Any) -> None:
        """Raises a `ValueError` if labels of a batch that was judged are none of the classes.

        Labels of examples that weigh 0 may be anything.
        """
        if self._units is None or y.dtype == tf.bool or self._form(y) == "one-hot":
            return
        labels = _weighing(np.asarray(y, np.float64), weight)
        single = self._units == 1
        least = -1 if single and self._threshold == 0 else 0
        classes = 2 if single else self._units
        if labels.size and not (labels.min() >= least and labels.max() < classes):
            signed = " -1 and 1 are labels of a model compiled with a hinge loss." if single else ""
            raise ValueError(
                f"Expected labels of {classes} classes, from {least} to {classes - 1}. Received: "
                f"labels from {labels.min():g} to {labels.max():g}.{signed} Labels that do not "
                "count need a sample weight of 0."
            )

    def _form(self, y: Any) -> str:
        shape, sides, units = y.shape[1:], self._sides, self._units
        if shape.is_compatible_with(sides):
            return "sparse"
        if units != 1 and shape.is_compatible_with([*sides, units]):
            return "one-hot"
        if shape.is_compatible_with([*sides, 1]):
            return "column"
        raise ValueError(_misfit(y, sides, units))

    def _wrong(self, y: tf.Tensor, prediction: tf.Tensor) -> tf.Tensor:
        """Whether each example is misjudged; a NaN is a misjudgement."""
        form = self._form(y)
        if not (y.dtype.is_floating or y.dtype.is_integer or y.dtype.is_bool):
            raise ValueError(_misfit(y, self._sides, self._units))
        invalid = tf.reduce_any(tf.math.is_nan(prediction), axis=-1)
        if form == "one-hot":
            label = tf.argmax(tf.cast(y, tf.float32), -1)
        else:
            label = tf.squeeze(y, -1) if form == "column" else y
        if self._units == 1:
            label = label if y.dtype == tf.bool else label > 0
            return (label != tf.squeeze(prediction > self._threshold, -1)) | invalid
        return (tf.cast(label, tf.int64) != tf.argmax(prediction, -1)) | invalid


def _misfit(y: Any, sides: Any, units: int | None) -> str:
    return (
        f"Expected labels of shape {('n', *sides)} or one-hot ones of shape "
        f"{('n', *sides, units)}. Received: {y.dtype.name} of shape {('n', *y.shape[1:])}."
    )


def _weighing(labels: NDArray[np.float64], weight: Any) -> NDArray[np.float64]:
    """The labels whose weight is not 0."""
    if weight is None:
        return labels
    counts = np.asarray(weight) != 0
    if counts.size != labels.size:
        trailing = (1,) * (labels.ndim - counts.ndim)
        counts = np.broadcast_to(counts.reshape(*counts.shape, *trailing), labels.shape)
    return np.asarray(labels[counts.reshape(labels.shape)])


def _around_zero(model: keras.Model) -> bool:
    """Whether the compiled loss of the one output takes logits, or is a hinge loss."""
    losses = keras.tree.flatten(getattr(model, "loss", None))
    if len(losses) != 1:
        return False
    loss = losses[0]
    if isinstance(loss, str):
        return bool(_HINGE.fullmatch(loss))
    kind = loss if hasattr(loss, "__name__") else type(loss)
    names = [k.__name__ for k in getattr(kind, "__mro__", (kind,))]
    return bool(getattr(loss, "from_logits", False)) or any(map(_HINGE.fullmatch, names))
