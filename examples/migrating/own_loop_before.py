"""A training loop of one's own, pruned as it goes."""

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras

sparsity = tfmot.sparsity.keras
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

schedule = sparsity.PolynomialDecay(0.0, 0.75, begin_step=0, end_step=24, frequency=8)
model = sparsity.prune_low_magnitude(model, schedule)
optimizer = tf_keras.optimizers.Adam()
model.optimizer = optimizer
steps = sparsity.UpdatePruningStep()
steps.set_model(model)
steps.on_train_begin()
for batch in tf.data.Dataset.from_tensor_slices((x, y)).repeat(2).batch(16):
    steps.on_train_batch_begin(batch=None)
    with tf.GradientTape() as tape:
        value = loss(batch[1], model(batch[0], training=True))
    gradients = tape.gradient(value, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
steps.on_epoch_end(batch=None)

model = sparsity.strip_pruning(model)
kernels = [layer.kernel.numpy() for layer in model.layers]
print("density", [float((kernel != 0).mean()) for kernel in kernels])
