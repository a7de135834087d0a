"""What goes into a training, and what is measured after each of its epochs."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lottery.experiments import datasets

_EVALUATION_BATCH = 2500


class Evaluation(keras.callbacks.Callback):
    """Validation loss and accuracy and test accuracy after each epoch, into the logs."""

    def __init__(self, model: keras.Model, data: datasets.Data):
        super().__init__()
        self.curve: list[dict[str, float]] = []
        self._parts = {"val": data.validation, "test": data.test}

        @tf.function(jit_compile=True, reduce_retracing=True)
        def measure(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            logits = tf.cast(model(x, training=False), tf.float32)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
            right = tf.argmax(logits, -1, output_type=y.dtype) == y
            return tf.stack([tf.reduce_sum(loss), tf.reduce_sum(tf.cast(right, tf.float32))])

        self._measure = measure

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.curve = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = {} if logs is None else logs
        for name, (x, y) in self._parts.items():
            sums = np.zeros(2)
            for i in range(0, len(x), _EVALUATION_BATCH):
                part = slice(i, i + _EVALUATION_BATCH)
                sums += self._measure(x[part], y[part]).numpy()
            logs[f"{name}_loss"], logs[f"{name}_accuracy"] = (float(s) for s in sums / len(x))
        self.curve.append({k: float(v) for k, v in logs.items() if k not in ("round", "density")})


def batches(part: tuple[Any, Any], batch_size: int, seed: int) -> tf.data.Dataset:
    """Shuffled anew each epoch, whole batches only; the order is a function of `seed`."""
    x, y = part
    indices = tf.data.Dataset.range(len(x)).shuffle(len(x), seed=seed)
    indices = indices.batch(batch_size, drop_remainder=True)
    return indices.map(lambda i: (tf.gather(x, i), tf.gather(y, i))).prefetch(2)
