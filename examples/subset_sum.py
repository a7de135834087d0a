"""A good network inside a random one, found by subset sums and never trained.

The experiment of "Optimal Lottery Tickets via SubsetSum" (2006.07990): a network with one hidden
layer of 500 units and no biases is trained; then random numbers are pruned until their sums
are its weights. First the sums alone, with candidates of each weight and with the paper's, shared
by a row. Then the random network of twice the depth is really built, and its own accuracy
measured. A figure shows how many random numbers a weight takes, with sums and without.

    python examples/subset_sum.py --dataset mnist.npz
"""

import time

import keras
import matplotlib
import numpy as np
from absl import app, flags
from sklearn.datasets import load_digits

from keras_lottery import strong

matplotlib.use("Agg")
import matplotlib.pyplot as plt

_DATASET = flags.DEFINE_string(
    "dataset", None, "An .npz with x_train, y_train, x_test, y_test. Default: the digits."
)
_EPOCHS = flags.DEFINE_integer("epochs", 10, "Epochs of the target's training.", lower_bound=1)
_TOLERANCE = flags.DEFINE_float("tolerance", 0.01, "Largest error of a weight.", lower_bound=1e-6)
_CANDIDATES = flags.DEFINE_integer("candidates", 21, "Random numbers for a weight.")
_FIGURE = flags.DEFINE_string("figure", "subset_sum.png", "Where the figure goes.")
_TINY = flags.DEFINE_bool("tiny", False, "A small target, to see that it runs.")


def data():
    if _DATASET.value is None:
        x, y = load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(x))
        x, y = x[order] / 16, y[order]
        return (x[:1297], y[:1297]), (x[1297:], y[1297:])
    with np.load(_DATASET.value) as file:
        parts = [file[name] for name in ("x_train", "y_train", "x_test", "y_test")]
    x, y, x_test, y_test = parts
    x, x_test = (a.reshape(len(a), -1).astype("float32") / 255 for a in (x, x_test))
    return (x, y), (x_test, y_test)


def trained(train, hidden, epochs):
    keras.utils.set_random_seed(0)
    x, y = train
    target = keras.Sequential(
        [
            keras.Input((x.shape[1],)),
            keras.layers.Dense(hidden, activation="relu", use_bias=False, name="hidden_layer"),
            keras.layers.Dense(int(y.max()) + 1, use_bias=False, name="output_layer"),
        ]
    )
    rate = keras.optimizers.schedules.CosineDecay(0.1, epochs * -(-len(x) // 64))
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, weight_decay=5e-4)
    target.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    target.fit(x, y, batch_size=64, epochs=epochs, verbose=0)
    return target


def accuracy(model, part):
    x, y = part
    parts = [model(x[i : i + 1000], training=False) for i in range(0, len(x), 1000)]
    return float(np.mean(np.concatenate(parts).argmax(axis=1) == y))


def sums_in_place(target, rows_share):
    """The target with its weights replaced by subset sums; seconds of CPU, kept, drawn again."""
    rng = np.random.default_rng(0)
    copy = keras.models.clone_model(target)
    kernels = [layer.kernel.numpy().T for layer in target.layers]
    low, high = min(k.min() for k in kernels), max(k.max() for k in kernels)
    seconds, kept, redrawn = 0.0, 0, 0
    for layer, rows in zip(copy.layers, kernels, strict=True):
        shape = (len(rows), 1 if rows_share else rows.shape[1], _CANDIDATES.value)
        candidates = rng.uniform(low, high, shape)
        start = time.process_time()
        found = strong.subset_sum(rows, candidates, _TOLERANCE.value)
        while len(found.missing):  # say, candidates that are all of the wrong sign
            redrawn += len(found.missing)
            row, column = found.missing.T
            drawn = rng.uniform(low, high, (len(row), _CANDIDATES.value))
            candidates[row, 0 if rows_share else column] = drawn
            found = strong.subset_sum(rows, candidates, _TOLERANCE.value)
        seconds += time.process_time() - start
        layer.kernel.assign(found.sums.T)
        kept += int(found.kept.sum())
    return copy, seconds, kept / target.count_params(), redrawn


def log_law(tiny):
    """Measured: random numbers that 95 % of the weights take, with sums and without."""
    sums = 10.0 ** -np.arange(1, 3 if tiny else 6)
    pairs = np.array([0.2, 0.1] if tiny else [0.3, 0.1, 0.03, 0.01])
    trials = 20 if tiny else 200
    return {
        "sums of candidates": (sums, [strong.theory.candidates_needed(t, trials) for t in sums]),
        "pairs, no sums": (pairs, [strong.theory.draws_needed(t, trials) for t in pairs]),
    }


def draw_figure(curves, path):
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, (tolerances, needed) in curves.items():
        axes.plot(tolerances, needed, "o-", label=name)
    tolerances, needed = curves["pairs, no sums"]
    axes.plot(tolerances, needed[0] * (tolerances[0] / tolerances) ** 2, "k:", label="1 / ε²")
    tolerances, needed = curves["sums of candidates"]
    slope = (needed[-1] - needed[0]) / np.log(tolerances[0] / tolerances[-1])
    law = needed[0] + slope * np.log(tolerances[0] / tolerances)
    axes.plot(tolerances, law, "k--", label=f"{slope:.2f} log(1 / ε) + constant")
    axes.set(xscale="log", yscale="log", xlabel="tolerance ε of a weight")
    axes.set(ylabel="random numbers or pairs for 95 % of weights")
    axes.invert_xaxis()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def show(name, seconds, kept, score):
    print(f"{name:44} {seconds:>14} {kept:>6} {score:>9}", flush=True)


def main(_):
    train, test = data()
    target = trained(train, 20 if _TINY.value else 500, 1 if _TINY.value else _EPOCHS.value)
    show("", "CPU seconds", "kept", "accuracy")
    show("the paper (36 cores; accuracy of its target)", "77,266 s wall", "9.39", "97.19 %")
    show("target", "", "", f"{accuracy(target, test):.2%}")
    for name, rows_share in (("weight", False), ("row", True)):
        copy, seconds, kept, redrawn = sums_in_place(target, rows_share)
        score = f"{accuracy(copy, test):.2%}"
        show(f"sums, candidates of each {name}", f"{seconds:.1f}", f"{kept:.2f}", score)
        if redrawn:
            print(f"  {redrawn} weights had no subset within tolerance: candidates drawn again")
    for structure in ("relu", "linear"):
        start = time.process_time()
        found = strong.approximate(
            target, _CANDIDATES.value, _TOLERANCE.value, structure=structure, widen=True
        )
        seconds = f"{time.process_time() - start:.1f}"
        kept = sum(found.kept[layer.name] * layer.count_params() for layer in target.layers)
        score = f"{accuracy(found.model, test):.2%}"
        show(f"random network, {structure}", seconds, f"{kept / target.count_params():.2f}", score)
        error = max(errors.max() for errors in found.errors.values())
        print(
            f"  {found.model.count_params():,} random weights, {found.ticket.density:.2%} alive, "
            f"candidates {list(found.candidates.values())}, largest error {error:.4f}"
        )
    draw_figure(log_law(_TINY.value), _FIGURE.value)
    print(f"figure: {_FIGURE.value}")


if __name__ == "__main__":
    app.run(main)
