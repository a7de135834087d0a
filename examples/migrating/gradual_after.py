"""Pruned while it is trained: from dense to a density of 20 % in 48 steps."""

import keras
import numpy as np

import keras_lottery as kl

x = np.random.default_rng(0).normal(size=(256, 16)).astype("float32")
y = x[:, :4].argmax(1)
model = keras.Sequential(
    [
        keras.Input((16,)),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dense(4),
    ]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

density = keras.optimizers.schedules.PolynomialDecay(1.0, 48, end_learning_rate=0.2, power=3)
model.compile("adam", loss)
gradual = kl.GradualPruning(density, scope="layerwise")
model.fit(x, y, 16, epochs=4, verbose=0, callbacks=[gradual])

kernels = [layer.kernel.numpy() for layer in model.layers]
print("density", [float((kernel != 0).mean()) for kernel in kernels])
