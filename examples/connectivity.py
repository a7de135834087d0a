"""Linear mode connectivity of a small BatchNorm ResNet: from which step k on is it stable?

From step k copies train to the end in several orders of the data, with random crops and
flips. Prints the error barrier on the straight line between them: of the dense network and,
with --density, of a ticket (pruned once by the magnitudes that the same network trains to, and
rewound to k) and of a random mask with the same counts in each layer. Below 2 % a
network is called stable (Frankle et al., 1912.05671).

    python examples/connectivity.py --dataset=fashion_mnist.npz --figure=connectivity.png
"""

import functools
import math

import keras
import numpy as np
from absl import app, flags
from keras import layers
from sklearn.datasets import load_digits

import keras_lottery as kl
from keras_lottery.analysis import plots
from keras_lottery.experiments.batches import batches
from keras_lottery.experiments.work import device

_DATASET = flags.DEFINE_string("dataset", None, "An .npz of 28x28 images; default: digits.")
_STEPS = flags.DEFINE_list("steps", ["0", "10", "30", "100", "300"], "The steps k.")
_LENGTH = flags.DEFINE_integer("length", 1200, "Steps of a training.")
_RATE = flags.DEFINE_float("rate", 0.4, "Learning rate of SGD, with cosine decay.")
_DENSITY = flags.DEFINE_float("density", None, "Of the ticket; default: the dense network only.")
_BATCHNORM = flags.DEFINE_enum("batchnorm", "interpolate", ["interpolate", "recompute"], "How.")
_REPLICATES = flags.DEFINE_integer("replicates", 3, "Networks, each with its initialization.")
_POINTS = flags.DEFINE_integer("points", 30, "Points on a line.")
_FIGURE = flags.DEFINE_string("figure", None, "Where to write the figures: NAME.png.")
_TINY = flags.DEFINE_bool("tiny", False, "A few steps on the digits, to see that it runs.")
BATCH = 128


@functools.cache
def load():
    """Standardized images and labels, for training (tensors, made once) and test."""
    if _DATASET.value is None or _TINY.value:
        x, y = load_digits(return_X_y=True)
        x = x.reshape(-1, 8, 8, 1).astype("float32")
        parts = x[:1297], y[:1297], x[1297:], y[1297:]
    else:
        with np.load(_DATASET.value) as file:
            parts = [file[name] for name in ("x_train", "y_train", "x_test", "y_test")]
    x, y, x_test, y_test = parts
    mean, std = x.mean(), x.std()
    x, x_test = (((a.reshape(*a.shape[:3], 1) - mean) / std) for a in (x, x_test))
    train = keras.ops.convert_to_tensor(x, "float32"), keras.ops.convert_to_tensor(y, "int32")
    return train, (x_test.astype("float32"), y_test)


def conv(x, filters, size=3, strides=1, relu=True):
    x = layers.Conv2D(
        filters, size, strides, "same", use_bias=False, kernel_initializer="he_normal"
    )(x)
    x = layers.BatchNormalization()(x)
    return layers.ReLU()(x) if relu else x


def build(seed):
    """A ResNet-8 of 16, 32 and 64 filters; its first convolution halves images of 28x28."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(load()[0][0].shape[1:])
    x = conv(inputs, 16, strides=2 if inputs.shape[1] > 8 else 1)
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        y = conv(conv(x, filters, 3, strides), filters, relu=False)
        if x.shape != y.shape:
            x = conv(x, filters, 1, strides, relu=False)
        x = layers.ReLU()(layers.Add()([x, y]))
    model = keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))
    rate = keras.optimizers.schedules.CosineDecay(_RATE.value, length())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), loss)
    return model


def length():
    return 12 if _TINY.value else _LENGTH.value


def train(model, first, last, seed):
    """Trains from one step to another; the batch of a step is a function of seed and step."""
    n = (length() if last is None else last) - first
    stream = batches(load()[0], BATCH, seed, start=first, augment="flip_crop")
    model.fit(stream, steps_per_epoch=n, shuffle=False, verbose=0)


def one_shot(replicate, step):
    """Masks by the magnitudes that the replicate's network trains to; the same for each k."""
    return _one_shot(replicate)


@functools.cache
def _one_shot(replicate):
    model = build(replicate)
    train(model, 0, None, replicate)
    return kl.prune(model, _DENSITY.value).masks


def main(argv):
    tiny = _TINY.value
    (x, y), test = load()
    x, y = (keras.ops.convert_to_numpy(a[:10000]) for a in (x, y))
    found = kl.analysis.stability(
        build,
        train,
        masks=one_shot if _DENSITY.value else None,
        data={"train": (x, y), "test": test},
        steps=[0, 4] if tiny else [int(k) for k in _STEPS.value],
        replicates=1 if tiny else _REPLICATES.value,
        points=3 if tiny else _POINTS.value,
        batchnorm=_BATCHNORM.value,
    )
    print(f"\n{'kind':12} {'k':>5}  barrier, test    barrier, train   error of the ends, test")
    for row in found.rows():
        if row["what"] == "order":
            heights = "  ".join(spread(row, f"barrier_{part}") for part in ("test", "train"))
            print(f"{row['kind']:12} {row['step']:5}  {heights}  {row['end_test_mean']:6.2%}")
    if _FIGURE.value:
        save(found)
    import tensorflow as tf

    n = 1 if tiny else _REPLICATES.value
    print(
        f"\nTensorFlow {tf.__version__}, Keras {keras.__version__}, {device()}, {n} replicates of"
    )
    print(f"two data orders, {length()} steps; train: {len(x):,} of the images trained on")


def spread(row, name):
    mean, std = (row[f"{name}_{of}"] for of in ("mean", "std"))
    return f"{mean:6.2%} " + (8 * " " if math.isnan(std) else f"± {std:6.2%}")


def save(found):
    """The barrier against k, and the error along the lines of each kind."""
    stem = _FIGURE.value.removesuffix(".png")
    plots.save(plots.barrier_heights(found, part="test"), f"{stem}.png")
    for kind in dict.fromkeys(c.kind for c in found.comparisons):
        lines = {}
        for c in found.comparisons:
            if c.kind == kind and c.what == "order":
                lines.setdefault(f"k = {c.step}", []).append(c.barrier)
        plots.save(plots.barrier(lines, title=kind), f"{stem}_{kind}.png")


if __name__ == "__main__":
    app.run(main)
