"""One search, on Keras 3 and on tf_keras with tfmot: masks of the first round, accuracies.

LeNet-300-100 on the digits of scikit-learn, from the same initial weights and with the same
order of data; the table shows the test accuracy of each round over all seeds.

    python benchmarks/tfmot_search.py --seeds=5 --rounds=6 --epochs=10
"""

import argparse

import keras
import numpy as np
from common import about
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_lottery as kl
from keras_lottery import tfmot
from keras_lottery.tfmot.importing import load

tf_keras = load().keras


def lenet(k):
    layers = [k.layers.Dense(300, "relu"), k.layers.Dense(100, "relu"), k.layers.Dense(10)]
    return k.Sequential([k.Input((64,)), *layers])


def search(k, model, callback, data, epochs):
    x, test_x, y, test_y = data
    loss = k.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(k.optimizers.Adam(1.2e-3), loss, metrics=["accuracy"])
    options = {"batch_size": 60, "shuffle": False, "verbose": 0, "epochs": epochs}
    model.fit(x, y, validation_data=(test_x, test_y), callbacks=[callback], **options)
    return callback


def both(seed, rounds, epochs):
    x, y = load_digits(return_X_y=True)
    data = train_test_split((x / 16).astype("float32"), y, test_size=0.3, random_state=seed)
    keras.utils.set_random_seed(seed)
    first, second = lenet(keras), lenet(tf_keras)
    second.set_weights(first.get_weights())
    options = {"epochs_per_round": epochs, "prune_fraction": 0.5, "verbose": 0}
    ours = search(keras, first, kl.LotteryCallback(**options), data, rounds * epochs)
    wrapped, callback = tfmot.wrap(second), tfmot.LotteryCallback(**options)
    theirs = search(tf_keras, wrapped, callback, data, rounds * epochs)
    return ours, theirs


def differing(ours, theirs, round):
    pairs = zip(ours.ticket(round).masks.values(), theirs.ticket(round).masks.values(), strict=True)
    return sum(int((a != b).sum()) for a, b in pairs)


def accuracies(searches):
    return np.array([[r.metrics["val_accuracy"] for r in s.rounds] for s in searches])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=10)
    flags = parser.parse_args()
    print(about())
    pairs = [both(seed, flags.rounds, flags.epochs) for seed in range(flags.seeds)]
    print("masks that differ in the first round:", [differing(*pair, 1) for pair in pairs])
    a, b = accuracies(p[0] for p in pairs), accuracies(p[1] for p in pairs)
    print("round  density  Keras 3           tf_keras + tfmot  apart, in standard deviations")
    for i, done in enumerate(pairs[0][0].rounds):
        apart, spread = abs(a[:, i].mean() - b[:, i].mean()), max(a[:, i].std(ddof=1), 1e-9)
        means = [f"{m[:, i].mean():.4f} +- {m[:, i].std(ddof=1):.4f}" for m in (a, b)]
        print(f"{i:5}  {done.density:7.4f}  {means[0]}  {means[1]}  {apart / spread:.2f}")


if __name__ == "__main__":
    main()
