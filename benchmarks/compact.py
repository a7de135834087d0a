"""Compacting: FLOPs and latency of a LeNet ticket, a channel-pruned ConvNet and a VGG.

Each compacted model runs in turns with the dense one it came from, in one process.
The ConvNet and the VGG are pruned by whole channels at initialization: what counts here is
size and speed, not accuracy.
"""

import common
import keras
from absl import app, flags
from keras import layers as L

import keras_lottery as kl

_DATA = flags.DEFINE_string(
    "dataset", "digits", "What the LeNet ticket is found on: digits, or an .npz like MNIST's."
)
_EPOCHS = flags.DEFINE_integer("epochs", 25, "Epochs a round of that search.")
_ROUNDS = flags.DEFINE_integer("rounds", 19, "Rounds of the LeNet search; 19 end below 2 %.")


def lenet_ticket():
    """LeNet-300-100 trained and pruned to 2 %, as `keras-lottery find` does it."""
    from keras_lottery.experiments import datasets, models

    data = datasets.load(_DATA.value, 0)
    model = models.build("lenet_300_100", data.input_shape, data.classes)
    model.compile(
        keras.optimizers.Adam(1.2e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
    )

    def train(model, callbacks):
        return model.fit(*data.train, 60, epochs=_EPOCHS.value, verbose=0, callbacks=callbacks)

    scope = kl.scopes.Layerwise(output_fraction=0.1)
    search = kl.find_ticket(model, train, _ROUNDS.value, scope=scope, verbose=0)
    kl.strip(model)
    return model, search.rounds[-1].density


def convnet():
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            *[L.Conv2D(64, 3, padding="same", activation="relu") for _ in range(2)],
            L.MaxPooling2D(),
            *[L.Conv2D(128, 3, padding="same", activation="relu") for _ in range(2)],
            L.MaxPooling2D(),
            L.Flatten(),
            L.Dense(256, "relu"),
            L.Dense(10),
        ]
    )


def vgg16():
    """VGG-16 for 32x32 images, with batch normalization (1409.1556, as in 1803.03635)."""
    layers = [keras.Input((32, 32, 3))]
    for filters, n in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(n):
            layers += [
                L.Conv2D(filters, 3, padding="same", use_bias=False),
                L.BatchNormalization(),
                L.ReLU(),
            ]
        layers.append(L.MaxPooling2D())
    return keras.Sequential([*layers, L.GlobalAveragePooling2D(), L.Dense(10)])


def show(name, model, batch_sizes):
    small, report = kl.export.compact(model, verbose=0, return_report=True)
    table = kl.export.measure(
        {"dense": model, "compact": small}, model, batch_sizes=batch_sizes, verbose=0
    )
    dense, compact = table.rows
    before, after = report.parameters
    print(
        f"{name}: density {dense.density:.2%}, parameters {before:,} -> {after:,}, FLOPs "
        f"{compact.flops / dense.flops:.3f} of dense, difference {compact.difference:.1e}"
    )
    for n in batch_sizes:
        ratio = compact.latency[n].median / dense.latency[n].median
        print(
            f"  batch {n}: {compact.latency[n].median:.2f} ms against "
            f"{dense.latency[n].median:.2f} ms, ratio {ratio:.2f}"
        )


def main(_):
    print(common.about())
    model, density = lenet_ticket()
    show(f"LeNet-300-100 ticket at {density:.1%} (unstructured)", model, (1, 32, 1024))
    for name, build in (("ConvNet", convnet), ("VGG-16", vgg16)):
        keras.utils.set_random_seed(0)
        model = build()
        kl.prune(model, density=0.25, scope=kl.scopes.Channels())
        kl.strip(model)
        show(f"{name}, 25 % of the channels of each layer", model, (1, 32))


if __name__ == "__main__":
    app.run(main)
