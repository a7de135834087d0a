"""CPU time of `fit` with the lottery callback against the same `fit` without it.

Both train the same number of epochs; the callback prunes 2 % and rewinds between two
rounds. The plain fit once more shows how far two equal things differ on this machine.
"""

import common
import keras
import numpy as np
from keras import layers

import keras_lottery as kl

EPOCHS, ROUND, BATCH, REPEATS = 6, 3, 60, 15
RNG = np.random.default_rng(0)


def lenet():
    return keras.Sequential(
        [
            keras.Input((784,)),
            layers.Dense(300, "relu"),
            layers.Dense(100, "relu"),
            layers.Dense(10),
        ]
    ), RNG.random((6000, 784), "float32")


def convnet():
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, "relu"),
            layers.Dense(10),
        ]
    ), RNG.random((1800, 28, 28, 1), "float32")


def training(build, with_callback, jit):
    keras.utils.set_random_seed(0)
    model, x = build()
    y = RNG.integers(0, 10, len(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], jit_compile=jit)

    def run():
        callbacks = [kl.LotteryCallback(ROUND, 0.02, verbose=0)] if with_callback else []
        model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=callbacks)

    return run


def main():
    print(common.about())
    for build in (lenet, convnet):
        for jit in (False, True):
            steps = 100 if build is lenet else 30
            print(f"\n{build.__name__}, jit_compile={jit}, {steps} steps an epoch")
            times = common.interleaved(
                {
                    "plain": training(build, False, jit),
                    "plain again": training(build, False, jit),
                    "with callback": training(build, True, jit),
                },
                REPEATS,
            )
            common.show_ratio("plain again", times, "plain")
            common.show_ratio("with callback", times, "plain")


if __name__ == "__main__":
    main()
