"""Back to the initialization, to an early step, or only the schedule back: three searches.

Prints the validation accuracy of each round, as in "Stabilizing the Lottery Ticket
Hypothesis" (1903.01611) and "Comparing Rewinding and Fine-tuning" (2003.02389).

    python examples/rewinding.py
"""

import keras
from absl import app, flags
from sklearn.datasets import load_digits

import keras_lottery as kl

_TINY = flags.DEFINE_bool("tiny", False, "Two epochs a round, to see that it runs.")
WAYS = {
    "weights, step 0": {"rewind": "weights"},
    "weights, step 22": {"rewind": "weights", "rewind_steps": 22},
    "learning rate": {"rewind": "learning_rate"},
    "none (fine-tuning)": {"rewind": "none"},
}


def search(options, x, y, epochs, rounds):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(100, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(100, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    rate = keras.optimizers.schedules.CosineDecay(0.1, epochs * 22)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), loss, metrics=["accuracy"])
    lottery = kl.LotteryCallback(epochs, 0.4, verbose=0, **options)
    model.fit(
        x[:1297],
        y[:1297],
        batch_size=60,
        epochs=epochs * rounds,
        validation_data=(x[1297:], y[1297:]),
        callbacks=[lottery],
        verbose=0,
    )
    return lottery.rounds


def main(_):
    x, y = load_digits(return_X_y=True)
    x = x.astype("float32") / 16
    epochs, rounds = (2, 3) if _TINY.value else (10, 8)
    for name, options in WAYS.items():
        found = search(options, x, y, epochs, rounds)
        row = "  ".join(f"{r.density:.1%}: {r.metrics['val_accuracy']:.3f}" for r in found)
        print(f"{name:20} {row}", flush=True)


if __name__ == "__main__":
    app.run(main)
