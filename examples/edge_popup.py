"""Edge-popup: a good network inside a random one, over three seeds.

Prints test accuracies of the untrained network, of the strong ticket at half the weights
(no weight trained), of a random mask of the same density on the same weights, and of the
dense network trained as long; saves their curve as a figure if asked to.

    python examples/edge_popup.py --dataset=mnist.npz
    python examples/edge_popup.py --dataset=fashion_mnist.npz --network=conv4 --samples=12000
"""

import keras
import numpy as np
from absl import app, flags
from sklearn.datasets import load_digits

import keras_lottery as kl
from keras_lottery import strong

_DATASET = flags.DEFINE_string("dataset", None, "An .npz of 28x28 images; default: digits.")
_NETWORK = flags.DEFINE_enum("network", "dense", ["dense", "conv4"], "784-500-10 or Conv-4.")
_EPOCHS = flags.DEFINE_integer("epochs", 5, "Epochs of each training.")
_SAMPLES = flags.DEFINE_integer("samples", None, "Training samples; default: all.")
_DENSITY = flags.DEFINE_float("density", 0.5, "The fraction of weights left alive.")
_RATE = flags.DEFINE_float("rate", 0.1, "The scores' learning rate; short runs want more.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Number of seeds.")
_FIGURE = flags.DEFINE_string("figure", None, "Where to write the figure, a .png.")
_TINY = flags.DEFINE_bool("tiny", False, "One epoch, one seed, digits, to see that it runs.")
BATCH = 128


def load():
    """Images of shape (n, side, side, 1) in [0, 1] and labels, for training and test."""
    if _DATASET.value is None or _TINY.value:
        x, y = load_digits(return_X_y=True)
        x = x.reshape(-1, 8, 8, 1).astype("float32") / 16
        return x[:1297], y[:1297], x[1297:], y[1297:]
    with np.load(_DATASET.value) as file:
        parts = [file[name] for name in ("x_train", "y_train", "x_test", "y_test")]
    x, y, x_test, y_test = parts
    x, x_test = (a[..., None].astype("float32") / 255 for a in (x, x_test))
    return x[: _SAMPLES.value], y[: _SAMPLES.value], x_test, y_test


def build(shape):
    layers = [keras.Input(shape)]
    if _NETWORK.value == "conv4":
        for filters in (64, 128):
            layers += [conv(filters), conv(filters), keras.layers.MaxPooling2D()]
    widths = (256, 256) if _NETWORK.value == "conv4" else (500,)
    layers.append(keras.layers.Flatten())
    layers += [keras.layers.Dense(n, "relu", use_bias=False) for n in widths]
    return keras.Sequential([*layers, keras.layers.Dense(10, use_bias=False)])


def conv(filters):
    return keras.layers.Conv2D(filters, 3, padding="same", activation="relu", use_bias=False)


def compile_for(model, steps, rate):
    """The paper's SGD with cosine decay."""
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    optimizer = keras.optimizers.SGD(schedule, momentum=0.9, weight_decay=1e-4)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])


def run(seed, x, y, x_test, y_test):
    """Accuracies by name, and the search's after each epoch."""
    keras.utils.set_random_seed(seed)
    epochs = 1 if _TINY.value else _EPOCHS.value
    steps = epochs * -(-len(x) // BATCH)
    model = build(x.shape[1:])
    search = strong.edge_popup(model, density=_DENSITY.value, seed=seed)

    def accuracy(network):
        return network.evaluate(x_test, y_test, batch_size=1000, verbose=0)[1]

    def fit(network, rate, **options):
        compile_for(network, steps, rate)
        return network.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0, **options)

    compile_for(model, steps, 0.01)
    found = {"untrained": accuracy(model)}
    history = fit(search, _RATE.value, validation_data=(x_test, y_test)).history["val_accuracy"]
    found["edge-popup"] = accuracy(search)
    fit(model, 0.01)
    found["trained"] = accuracy(model)
    ticket = strong.ticket(search)
    kl.controls.shuffle_mask(ticket, seed).apply(model)
    found["random mask"] = accuracy(model)
    return found, history


def draw(histories, found):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    epochs = range(1, len(histories[0]) + 1)
    for i, history in enumerate(histories):
        axes.plot(epochs, history, "o-", color="C0", label=None if i else "edge-popup")
    for i, name in enumerate(("trained", "random mask", "untrained")):
        mean = np.mean([f[name] for f in found])
        axes.axhline(mean, color=f"C{i + 1}", linestyle="--", label=name)
    axes.set(xlabel="epoch", ylabel="test accuracy", ylim=(0, 1))
    axes.set_title(f"{_NETWORK.value}, density {_DENSITY.value:.0%}, {len(found)} seeds")
    axes.legend(loc="center right")
    figure.savefig(_FIGURE.value, dpi=120)


def main(_):
    data = load()
    found, histories = [], []
    for seed in range(1 if _TINY.value else _SEEDS.value):
        accuracies, history = run(seed, *data)
        found.append(accuracies)
        histories.append(history)
        row = "  ".join(f"{name} {value:.4f}" for name, value in accuracies.items())
        print(f"seed {seed}: {row}", flush=True)
    for name in found[0]:
        values = [f[name] for f in found]
        print(f"{name:12} {np.mean(values):.4f} (std {np.std(values):.4f})")
    if _FIGURE.value:
        draw(histories, found)


if __name__ == "__main__":
    app.run(main)
