"""Saved in the middle, loaded, and pruned further."""

import pathlib
import tempfile

import numpy as np
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

schedule = sparsity.PolynomialDecay(0.0, 0.8, begin_step=0, end_step=48, frequency=8)
model = sparsity.prune_low_magnitude(model, schedule)
model.compile("adam", loss)
model.fit(x, y, 16, epochs=2, verbose=0, callbacks=[sparsity.UpdatePruningStep()])
path = pathlib.Path(tempfile.mkdtemp()) / "model.keras"
model.save(path)

with sparsity.prune_scope():
    model = tf_keras.models.load_model(path)
model.fit(x, y, 16, epochs=2, verbose=0, callbacks=[sparsity.UpdatePruningStep()])

model = sparsity.strip_pruning(model)
kernels = [layer.kernel.numpy() for layer in model.layers]
print("density", [float((kernel != 0).mean()) for kernel in kernels])
