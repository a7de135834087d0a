"""A training loop of one's own: masks through `kl.enforce`, a search through `find_ticket`.

python examples/own_training_loop.py
"""

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from sklearn.datasets import load_digits

import keras_lottery as kl

_TINY = flags.DEFINE_bool("tiny", False, "One epoch a round, to see that it runs.")


def main(_):
    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    x = x.reshape(-1, 8, 8, 1).astype("float32") / 16
    data = tf.data.Dataset.from_tensor_slices((x[:1297], y[:1297])).shuffle(1297, seed=0).batch(60)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    optimizer = keras.optimizers.AdamW(2e-3, global_clipnorm=1.0)
    model.compile(optimizer)  # the search rewinds the compiled optimizer with the weights
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            loss = loss_fn(labels, model(images, training=True))
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    def train(model, callbacks):
        for _ in range(1 if _TINY.value else 8):
            for images, labels in data:
                step(images, labels)
        right = np.argmax(model.predict(x[1297:], verbose=0), -1) == y[1297:]
        print(f"density {kl.density(model):.1%}, test accuracy {right.mean():.2%}")

    search = kl.find_ticket(
        model,
        train,
        rounds=3 if _TINY.value else 8,
        prune_fraction=0.3,
        scope=kl.scopes.Layerwise({"conv": 0.15}),
        verbose=0,
    )
    print("densities:", [f"{r.density:.3f}" for r in search.rounds])
    kl.strip(model).save("sparse.keras")  # plain Keras: loads without this package


if __name__ == "__main__":
    app.run(main)
