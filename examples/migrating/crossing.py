"""A model that tfmot pruned goes on in Keras 3, and back."""

import keras
import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras

import keras_lottery as kl


def build(library):
    layers = library.layers
    return library.Sequential(
        [library.Input((16,)), layers.Dense(32, activation="relu"), layers.Dense(4)]
    )


x = np.random.default_rng(0).normal(size=(256, 16)).astype("float32")
y = x[:, :4].argmax(1)
sparsity = tfmot.sparsity.keras
old = sparsity.prune_low_magnitude(build(tf_keras), sparsity.ConstantSparsity(0.5, begin_step=1))
old.compile("adam", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
old.fit(x, y, 16, epochs=1, verbose=0, callbacks=[sparsity.UpdatePruningStep()])

ticket = kl.tfmot.ticket_of(old)
model = build(keras)
handle = kl.tfmot.to_keras3(ticket, model)
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(x, y, 16, epochs=1, verbose=0)  # stays sparse

kl.tfmot.put(kl.Ticket.of(model, handle.masks), old)
kernels = [layer.kernel.numpy() for layer in model.layers]
print("density", [float((kernel != 0).mean()) for kernel in kernels])
