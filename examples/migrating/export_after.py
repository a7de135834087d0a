"""A smaller file, which Keras loads without this package."""

import pathlib
import tempfile

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

kl.prune(model, density=0.1, scope="layerwise")
model.compile("adam", loss)
model.fit(x, y, 16, epochs=1, verbose=0)

folder = pathlib.Path(tempfile.mkdtemp())
plain = kl.export.keras(model, folder / "plain.keras")
small = kl.export.keras(model, folder / "model.keras", compress=True)
assert small.stat().st_size < plain.stat().st_size
model = keras.models.load_model(small)
kernels = [layer.kernel.numpy() for layer in model.layers]
print("density", [float((kernel != 0).mean()) for kernel in kernels])
