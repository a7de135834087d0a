"""When does the mask settle? Early-bird tickets of LeNet-300-100.

One dense training watches, after each epoch, the masks that pruning to three densities would
give; prints the epoch in which each has settled, and how well the ticket drawn there, rewound to
the initialization, does beside the dense network and the ticket drawn at the end.

    python examples/early_bird.py --dataset=mnist.npz --figure=early_bird.png
"""

import keras
import numpy as np
from absl import app, flags
from sklearn.datasets import load_digits

import keras_lottery as kl
from keras_lottery.analysis import EarlyBird, plots

_DATASET = flags.DEFINE_string("dataset", None, "An .npz of 28x28 images; default: digits.")
_EPOCHS = flags.DEFINE_integer("epochs", 15, "Epochs of each training.")
_FIGURE = flags.DEFINE_string("figure", None, "Where to write the figure, a .png.")
_TINY = flags.DEFINE_bool("tiny", False, "A few epochs on the digits, to see that it runs.")
DENSITIES = (0.5, 0.2, 0.1)


def load():
    if _DATASET.value is None or _TINY.value:
        x, y = load_digits(return_X_y=True)
        return x[:1297] / 16, y[:1297], x[1297:] / 16, y[1297:]
    with np.load(_DATASET.value) as file:
        x, y, x_test, y_test = (file[n] for n in ("x_train", "y_train", "x_test", "y_test"))
    return x.reshape(len(x), -1) / 255, y, x_test.reshape(len(x_test), -1) / 255, y_test


def fit(model, data, *callbacks):
    """Trains from a fresh optimizer; returns the test accuracy at the end."""
    x, y, *test = data
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1.2e-3), loss, metrics=["accuracy"], jit_compile=True)
    epochs = 6 if _TINY.value else _EPOCHS.value
    model.fit(x, y, 60, epochs=epochs, verbose=0 if _TINY.value else 2, callbacks=list(callbacks))
    return model.evaluate(*test, verbose=0)[1]


def main(argv):
    keras.utils.set_random_seed(0)
    data = load()
    layers = [keras.layers.Dense(n, "relu") for n in (300, 100)]
    model = keras.Sequential([keras.Input(data[0].shape[1:]), *layers, keras.layers.Dense(10)])
    initial = model.get_weights()
    birds = {density: EarlyBird(density) for density in DENSITIES}
    dense = fit(model, data, *birds.values())
    trained = model.get_weights()
    print(f"\ndense: {dense:.2%}")
    for density, bird in birds.items():
        model.set_weights(trained)
        with kl.prune(model, density) as handle:
            at_the_end = handle.masks
        for when, masks in ((f"epoch {bird.epoch}", bird.masks), ("the end", at_the_end)):
            if masks is not None:
                model.set_weights(initial)
                with kl.enforce(model, masks):
                    accuracy = fit(model, data)
                print(f"ticket at {density:.0%}, drawn at {when}: {accuracy:.2%}")
    print(f"Keras {keras.__version__}, one seed; epochs are counted from 0")
    if _FIGURE.value:
        found = {f"{density:.0%} alive": bird.distances for density, bird in birds.items()}
        plots.save(plots.mask_distances(found, threshold=0.1), _FIGURE.value)


if __name__ == "__main__":
    app.run(main)
