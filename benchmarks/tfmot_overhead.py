"""CPU time of training under masks: ours on Keras 3, tfmot's on tf_keras, each against its `fit`.

Four trainings of the same LeNet run in turns in one process: Keras 3 plain and under
`GradualPruning`, tf_keras plain and wrapped by `prune_low_magnitude`. Both prune by the same
schedule, which ends in the first turn; what is timed are steps under the masks it left. The
plain fits once more show how far two equal things differ on this machine. What counts are the
ratios within one Keras. Needs the extra `tfmot`.
"""

import common
import keras
import numpy as np

from keras_lottery.gradual import GradualPruning
from keras_lottery.tfmot import importing

EPOCHS, BATCH, REPEATS, STEPS = 3, 60, 7, 100
RNG = np.random.default_rng(0)
X, Y = RNG.random((STEPS * BATCH, 784), "float32"), RNG.integers(0, 10, STEPS * BATCH)


def lenet(kind):
    layers = kind.layers
    return kind.Sequential(
        [
            layers.InputLayer((784,)),
            layers.Dense(300, "relu"),
            layers.Dense(100, "relu"),
            layers.Dense(10),
        ]
    )


def schedule(tfmot):
    return tfmot.PolynomialDecay(0.0, 0.9, begin_step=0, end_step=STEPS, frequency=20)


def training(kind, model, callbacks, jit):
    loss = kind.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(kind.optimizers.Adam(), loss, jit_compile=jit)

    def run():
        model.fit(X, Y, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=callbacks)

    return run


def main():
    legacy = importing.load()
    tfmot, old = legacy.tfmot.sparsity.keras, legacy.keras
    print(common.about(), "tf_keras", old.__version__, "tfmot", legacy.tfmot.__version__)
    for jit in (False, True):
        print(f"\nLeNet-300-100, batch {BATCH}, jit_compile={jit}, {STEPS * EPOCHS} steps")
        wrapped = tfmot.prune_low_magnitude(lenet(old), schedule(tfmot))
        ours = [GradualPruning(schedule(tfmot), scope="layerwise")]
        times = common.interleaved(
            {
                "Keras 3": training(keras, lenet(keras), [], jit),
                "Keras 3 again": training(keras, lenet(keras), [], jit),
                "Keras 3, masked": training(keras, lenet(keras), ours, jit),
                "tf_keras": training(old, lenet(old), [], jit),
                "tf_keras again": training(old, lenet(old), [], jit),
                "tf_keras, tfmot": training(old, wrapped, [tfmot.UpdatePruningStep()], jit),
            },
            REPEATS,
        )
        for name, base in (
            ("Keras 3 again", "Keras 3"),
            ("Keras 3, masked", "Keras 3"),
            ("tf_keras again", "tf_keras"),
            ("tf_keras, tfmot", "tf_keras"),
        ):
            common.show_ratio(name, times, base)


if __name__ == "__main__":
    main()
