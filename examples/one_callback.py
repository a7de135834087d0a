"""One callback in `model.fit`: a ticket of the handwritten digits, saved and trained afresh.

python examples/one_callback.py
"""

import keras
import numpy as np
from absl import app, flags
from sklearn.datasets import load_digits

import keras_lottery as kl

_TINY = flags.DEFINE_bool("tiny", False, "One epoch a round, to see that it runs.")


def build():
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(300, activation="relu"),
            keras.layers.Dense(100, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1.2e-3), loss, metrics=["accuracy"])
    return model


def main(_):
    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order].astype("float32") / 16, y[order]
    train, validation, test = (
        (x[:1100], y[:1100]),
        (x[1100:1297], y[1100:1297]),
        (x[1297:], y[1297:]),
    )

    epochs, rounds = (1, 3) if _TINY.value else (15, 11)
    model = build()
    lottery = kl.LotteryCallback(epochs, prune_fraction=0.2)
    model.fit(
        *train,
        batch_size=60,
        epochs=epochs * rounds,
        validation_data=validation,
        callbacks=[lottery],
        verbose=0,
    )
    kl.summary(model)
    print(f"test accuracy at {kl.density(model):.1%}: {accuracy(model, test):.2%}")

    lottery.ticket().save("ticket.safetensors")
    ticket = kl.Ticket.load("ticket.safetensors")
    fresh = build()
    ticket.apply(fresh)
    fresh.fit(*train, batch_size=60, epochs=epochs, verbose=0)
    print(f"the ticket alone, trained afresh:  {accuracy(fresh, test):.2%}")

    other = build()
    kl.controls.reinitialize(ticket, other, seed=1).apply(other)
    other.fit(*train, batch_size=60, epochs=epochs, verbose=0)
    print(f"its masks, re-initialized weights: {accuracy(other, test):.2%}")


def accuracy(model, part):
    return model.evaluate(*part, verbose=0, return_dict=True)["accuracy"]


if __name__ == "__main__":
    app.run(main)
