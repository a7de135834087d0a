"""Only the hidden layer is pruned."""

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


def wrap(layer):
    if layer is not model.layers[0]:
        return layer
    return sparsity.prune_low_magnitude(layer, sparsity.ConstantSparsity(0.75, begin_step=1))


model = tf_keras.models.clone_model(model, clone_function=wrap)
model.compile("adam", loss)
model.fit(x, y, 16, epochs=1, verbose=0, callbacks=[sparsity.UpdatePruningStep()])

model = sparsity.strip_pruning(model)
kernels = [layer.kernel.numpy() for layer in model.layers]
print("density", [float((kernel != 0).mean()) for kernel in kernels])
