"""Staying with tf_keras: the lottery on models that tfmot wraps."""

import numpy as np
import tf_keras

import keras_lottery as kl

x = np.random.default_rng(0).normal(size=(256, 16)).astype("float32")
y = x[:, :4].argmax(1)
model = tf_keras.Sequential(
    [
        tf_keras.Input((16,)),
        tf_keras.layers.Dense(32, activation="relu"),
        tf_keras.layers.Dense(4),
    ]
)
loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)

model = kl.tfmot.wrap(model)
model.compile("adam", loss)
lottery = kl.tfmot.LotteryCallback(
    epochs_per_round=2, prune_fraction=0.5, scope="layerwise", verbose=0
)
model.fit(x, y, 16, epochs=6, verbose=0, callbacks=[lottery])

masks = lottery.ticket().masks.values()
print("density", [float(mask.mean()) for mask in masks])
