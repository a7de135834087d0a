"""2:4 sparsity: of four weights in a row along the inputs two are left."""

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

kl.prune(model, density=0.5, scope=kl.scopes.NM(2, 4))
model.compile("adam", loss)
model.fit(x, y, 16, epochs=1, verbose=0)

assert all(kl.scopes.is_m_by_n(layer.kernel) for layer in model.layers)
kernels = [layer.kernel.numpy() for layer in model.layers]
print("density", [float((kernel != 0).mean()) for kernel in kernels])
