"""A training loop of one's own, pruned as it goes."""

import keras
import numpy as np
import tensorflow as tf

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

optimizer = keras.optimizers.Adam()
model.compile(optimizer)
data = tf.data.Dataset.from_tensor_slices((x, y)).repeat(2).batch(16)
for step, (images, labels) in enumerate(data):
    if step % 8 == 0:
        kl.prune(model, 0.25 + 0.75 * max(0, 1 - step / 24) ** 3, scope="layerwise")
    with tf.GradientTape() as tape:
        value = loss(labels, model(images, training=True))
    gradients = tape.gradient(value, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

kernels = [layer.kernel.numpy() for layer in model.layers]
print("density", [float((kernel != 0).mean()) for kernel in kernels])
