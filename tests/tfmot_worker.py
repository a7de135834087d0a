"""One worker of a search under MultiWorkerMirroredStrategy; writes what it ended with.

Called as `python tfmot_worker.py <file.npz>`, its place in the cluster in TF_CONFIG.
"""

import sys

import numpy as np
import tensorflow as tf

from keras_lottery.tfmot.importing import load


def main(path):
    tf.config.threading.set_inter_op_parallelism_threads(2)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before any other op of TensorFlow
    from keras_lottery.tfmot import LotteryCallback, wrap

    keras = load().keras
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 6)).astype("float32"), rng.integers(0, 3, 64)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        layers = [keras.layers.Dense(8, "relu", name="a"), keras.layers.Dense(3, name="out")]
        model = wrap(keras.Sequential([keras.Input((6,)), *layers]))
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    lottery = LotteryCallback(1, 0.5, rewind_steps=1, verbose=0)
    model.fit(x, y, epochs=3, batch_size=16, verbose=0, callbacks=[lottery])
    masks = {f"mask {p}": m for p, m in lottery.ticket().masks.items()}
    ends = {f"weight {v.name}": v.numpy() for v in model.weights}
    densities = np.array([r.density for r in lottery.rounds])
    workers = np.array(strategy.num_replicas_in_sync)
    np.savez(path, densities=densities, workers=workers, **masks, **ends)


if __name__ == "__main__":
    main(sys.argv[1])
