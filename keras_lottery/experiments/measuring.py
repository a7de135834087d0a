"""Loss and accuracy of a model on whole parts of a data set."""

from typing import Any

import keras
import tensorflow as tf

_BATCH = 2500


class Measure:
    """Measures a model on one part of the data, as often as it is called.

    Args:
        model: A model that ends in logits.
        part: Pair of images `(n, height, width, channels)` and integer labels `(n,)`.
        jit: Whether XLA compiles it.
    """

    def __init__(self, model: keras.Model, part: tuple[Any, Any], jit: bool):
        x, y = part
        cuts = [slice(i, i + _BATCH) for i in range(0, len(x), _BATCH)]
        self._batches = [(tf.constant(x[c]), tf.constant(y[c])) for c in cuts]
        self._n = len(x)

        @tf.function(jit_compile=jit, reduce_retracing=True)
        def measure(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            logits = tf.cast(model(x, training=False), tf.float32)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
            right = tf.argmax(logits, -1, output_type=y.dtype) == y
            return tf.stack([tf.reduce_sum(losses), tf.reduce_sum(tf.cast(right, tf.float32))])

        self._measure = measure

    def __call__(self) -> tuple[float, float]:
        """Mean loss, in nats, and accuracy, in [0, 1]."""
        sums = sum(self._measure(x, y).numpy().astype(float) for x, y in self._batches)
        loss, right = (float(s) / self._n for s in sums)
        return loss, right
