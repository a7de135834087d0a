"""A smaller file: strip the wrappers, save, compress."""

import pathlib
import tempfile
import zipfile

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

model = sparsity.prune_low_magnitude(model, sparsity.ConstantSparsity(0.9, begin_step=1))
model.compile("adam", loss)
model.fit(x, y, 16, epochs=1, verbose=0, callbacks=[sparsity.UpdatePruningStep()])

model = sparsity.strip_pruning(model)
folder = pathlib.Path(tempfile.mkdtemp())
model.save(folder / "model.keras")
with zipfile.ZipFile(folder / "model.zip", "w", zipfile.ZIP_DEFLATED) as file:
    file.write(folder / "model.keras")
sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
assert sizes["model.zip"] < sizes["model.keras"]
kernels = [layer.kernel.numpy() for layer in model.layers]
print("density", [float((kernel != 0).mean()) for kernel in kernels])
