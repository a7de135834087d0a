"""Loss and accuracy of a model on whole parts of a data set."""

from typing import Any

import keras
import tensorflow as tf

_BATCH = 1000  # larger ones take more memory and are no faster


class Measure:
    """Measures a model on one part of the data, as often as it is called.

    Args:
        model: A model that ends in logits.
        part: Pair of images `(n, height, width, channels)` and integer labels `(n,)`, tensors
            or arrays. They are held in memory once.
        jit: Whether XLA compiles it. On CPUs TensorFlow's own matrix products take less time.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Identity()])
    >>> right, wrong = [0.0, 50.0], [50.0, 0.0]
    >>> Measure(model, (tf.constant([right, wrong]), tf.constant([1, 1])), jit=False)()
    (25.0, 0.5)
    """

    def __init__(self, model: keras.Model, part: tuple[Any, Any], jit: bool):
        self._part = tuple(tf.convert_to_tensor(a) for a in part)

        @tf.function(jit_compile=jit, reduce_retracing=True)
        def sums(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            logits = tf.cast(model(x, training=False), tf.float32)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
            right = tf.argmax(logits, -1, output_type=y.dtype) == y
            both = [tf.reduce_sum(losses), tf.reduce_sum(tf.cast(right, tf.float32))]
            return tf.cast(tf.stack(both), tf.float64)

        @tf.function
        def measure(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            total = tf.zeros(2, tf.float64)
            for i in tf.range(0, len(y), _BATCH):
                tf.autograph.experimental.set_loop_options(parallel_iterations=2)
                total += sums(x[i : i + _BATCH], y[i : i + _BATCH])
            return total

        self._measure = measure

    def __call__(self) -> tuple[float, float]:
        """Mean loss, in nats, and accuracy, in [0, 1]."""
        loss, right = self._measure(*self._part).numpy() / len(self._part[1])
        return float(loss), float(right)
