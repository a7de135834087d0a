"""Ending a round on 25 million weights: score, global prune, rewind weights and Adam slots.

CPU time against one `np.partition` over the same weights, interleaved; and the memory that
it takes beyond the snapshot of the rewind point, against the size of the weights.
"""

import sys

import common
import keras
import numpy as np

import keras_lottery as kl
from keras_lottery.search import Search
from keras_lottery.settings import Settings

LAYERS, UNITS, REPEATS = 6, 2048, 7


def model_of_25_million():
    inputs = keras.Input((UNITS,))
    x = inputs
    for _ in range(LAYERS):
        x = keras.layers.Dense(UNITS, use_bias=False)(x)
    model = keras.Model(inputs, x)
    model.compile("adam", "mse")
    return model


def main():
    print(common.about())
    model = model_of_25_million()
    initial = model.get_weights()
    flat = np.abs(np.concatenate([w.ravel() for w in initial]))
    times = {"np.partition": [], "end of a round": []}
    for turn in range(REPEATS + 1):
        kl.strip(model).set_weights(initial)
        search = Search(model, Settings(), 2)

        def end_round(search=search):
            search.finish_round({}, None, 0, 0.0)
            search.next_round()

        if turn == 0 and sys.platform == "linux":
            with common.Peak() as peak:
                end_round()
            extra = (peak.most - peak.start) / flat.nbytes
            print(f"{flat.size:,} weights; peak memory: {extra:.2f} times the weights")
            continue
        times["np.partition"].append(common.cpu_seconds(lambda: np.partition(flat, flat.size // 5)))
        times["end of a round"].append(common.cpu_seconds(end_round))
    times = {name: np.array(seconds) for name, seconds in times.items()}
    for name, seconds in times.items():
        print(f"{name}: {np.median(seconds):.2f} s of CPU")
    common.show_ratio("end of a round", times, "np.partition")


if __name__ == "__main__":
    main()
