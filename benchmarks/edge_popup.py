"""CPU time of an edge-popup step against the same model's ordinary training step.

Both fit the same data in turns, at batch 128.
"""

import common
import keras
import numpy as np
from absl import app, flags
from keras import layers

from keras_lottery.strong import edge_popup

_REPEATS = flags.DEFINE_integer("repeats", 9, "Fits of each kind.")
_TINY = flags.DEFINE_bool("tiny", False, "One fit of few steps, to see that it runs.")
BATCH = 128
RNG = np.random.default_rng(0)


def dense():
    return keras.Sequential(
        [
            keras.Input((784,)),
            layers.Dense(500, "relu", use_bias=False),
            layers.Dense(10, use_bias=False),
        ]
    )


def conv4():
    pairs = [
        layer
        for filters in (64, 128)
        for layer in (
            layers.Conv2D(filters, 3, padding="same", activation="relu", use_bias=False),
            layers.Conv2D(filters, 3, padding="same", activation="relu", use_bias=False),
            layers.MaxPooling2D(),
        )
    ]
    tail = [layers.Dense(256, "relu", use_bias=False) for _ in range(2)]
    head = layers.Dense(10, use_bias=False)
    return keras.Sequential([keras.Input((28, 28, 1)), *pairs, layers.Flatten(), *tail, head])


def training(model, steps, jit):
    shape = getattr(model, "network", model).input_shape[1:]
    x = RNG.random((BATCH * steps, *shape), "float32")
    y = RNG.integers(0, 10, len(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, jit_compile=jit)
    return lambda: model.fit(x, y, batch_size=BATCH, verbose=0)


def main(_):
    print(common.about())
    repeats = 1 if _TINY.value else _REPEATS.value
    for build, steps in ((dense, 100), (conv4, 4)):
        for jit in (False, True):
            steps = 2 if _TINY.value else steps
            print(f"\n{build.__name__}, jit_compile={jit}, {steps} steps, batch {BATCH}")
            runs = {"plain": training(build(), steps, jit)}
            for scope in ("layerwise", "global"):
                search = edge_popup(build(), scope=scope)
                runs[f"edge-popup, {scope}"] = training(search, steps, jit)
            times = common.interleaved(runs, repeats)
            print(f"plain: {1000 * times['plain'].min() / steps:.2f} ms a step")
            for name in list(runs)[1:]:
                common.show_ratio(name, times, "plain")


if __name__ == "__main__":
    app.run(main)
