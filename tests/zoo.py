"""The models of the exams: one short builder each, input 8x8x1 or 64 or 4 tokens of 8."""

import keras
import tensorflow as tf
from keras import layers as L


def two_devices():
    """A strategy of two logical CPUs.

    Not by collectives: Keras's clear_session makes their keys meet those of other tests.
    """
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], reduction)


class Scaled(L.Layer):
    """A custom layer with a weight of its own."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 12), name="kernel")

    def call(self, x):
        return keras.ops.tanh(x @ self.kernel)


class Block(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = [L.Dense(12, "relu"), L.Dense(12)]

    def call(self, x):
        for layer in self.inner:
            x = layer(x)
        return x


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.flat = L.Flatten()
        self.a, self.b = Block(), Block()
        self.out = L.Dense(3)

    def call(self, x):
        return self.out(self.b(self.a(self.flat(x))))


def sequential():
    return keras.Sequential(
        [keras.Input((8, 8, 1)), L.Flatten(), L.Dense(16, "relu"), L.Dense(12, "relu"), L.Dense(3)]
    )


def functional():
    x = keras.Input((8, 8, 1))
    h = L.Flatten()(x)
    a, b = L.Dense(12, "relu")(h), L.Dense(12, "tanh")(h)
    return keras.Model(x, L.Dense(3)(L.Concatenate()([a, b])))


def subclassed():
    model = Subclassed()
    model(keras.ops.zeros((1, 8, 8, 1)))
    return model


def nested():
    inner = keras.Sequential([keras.Input((16,)), L.Dense(12, "relu"), L.Dense(12)])
    return keras.Sequential(
        [keras.Input((8, 8, 1)), L.Flatten(), L.Dense(16, "relu"), inner, L.Dense(3)]
    )


def shared():
    x = keras.Input((8, 8, 1))
    twice = L.Dense(16, "relu")
    h = twice(L.Dense(16)(L.Flatten()(x)))
    return keras.Model(x, L.Dense(3)(twice(h)))


def custom():
    return keras.Sequential([keras.Input((8, 8, 1)), L.Flatten(), Scaled(), L.Dense(3)])


def conv():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            L.Conv2D(4, 3, padding="same", use_bias=False),
            L.BatchNormalization(),
            L.ReLU(),
            L.DepthwiseConv2D(3, strides=2, padding="same"),
            L.Conv2DTranspose(3, 2, strides=2),
            L.GlobalAveragePooling2D(),
            L.Dense(3),
        ]
    )


def attention():
    x = keras.Input((8, 8, 1))
    h = L.Reshape((8, 8))(x)
    h = L.LayerNormalization()(h + L.MultiHeadAttention(2, 4)(h, h))
    h = L.EinsumDense("btd,de->bte", output_shape=(None, 6), bias_axes="e")(h)
    return keras.Model(x, L.Dense(3)(L.LSTM(5)(h)))


MODELS = {
    f.__name__: f
    for f in (sequential, functional, subclassed, nested, shared, custom, conv, attention)
}
