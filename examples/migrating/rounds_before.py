"""Lottery rounds by hand: train, prune, put the initial weights back, train again."""

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

initial = model.get_weights()
for goal in (0.0, 0.5, 0.75):
    once = sparsity.ConstantSparsity(goal, begin_step=0, end_step=1, frequency=1)
    pruned = sparsity.prune_low_magnitude(model, once)
    pruned.compile("adam", loss)
    # One step of no size chooses the masks; then the weights go back to the initial ones.
    pruned.optimizer.learning_rate = 0.0
    pruned.fit(x[:16], y[:16], 16, verbose=0, callbacks=[sparsity.UpdatePruningStep()])
    model.set_weights(initial)
    pruned.compile("adam", loss)
    pruned.fit(x, y, 16, epochs=2, verbose=0, callbacks=[sparsity.UpdatePruningStep()])
    model = sparsity.strip_pruning(pruned)
kernels = [layer.kernel.numpy() for layer in model.layers]
print("density", [float((kernel != 0).mean()) for kernel in kernels])
