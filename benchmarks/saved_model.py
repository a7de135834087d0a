"""The sparse SavedModel: bytes against the entropy bound, time to load, latency, memory.

The dense counterpart is the SavedModel of `model.export()` of the same network, not pruned.
Both are loaded and called in turns in one process. Weights are initial ones, pruned by
magnitude inside each layer: what counts here is size and speed.
"""

import pathlib
import subprocess
import sys
import tempfile
import time

import common
import keras
import numpy as np
import tensorflow as tf
from absl import app, flags, logging

import keras_lottery as kl
from keras_lottery.export.coding import entropy_bound

_MODEL = flags.DEFINE_enum("model", "all", ["lenet", "resnet50", "all"], "Which networks.")
_MEMORY = flags.DEFINE_bool("memory", False, "Only the memory that exporting ResNet-50 takes.")
DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)


def lenet():
    layers = [keras.layers.Dense(n, "relu") for n in (300, 100)]
    return keras.Sequential([keras.Input((784,)), *layers, keras.layers.Dense(10)])


def resnet50():
    return keras.applications.ResNet50(weights=None)


def pruned(build, density):
    keras.utils.set_random_seed(0)
    model = build()
    kl.prune(model, density=density, scope="layerwise")
    return kl.strip(model)


def size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def bytes_by_density(name, build, folder):
    print(f"{name}: density, bytes of variables/ over the entropy bound, bytes of the rest")
    for density in DENSITIES:
        model = pruned(build, density)
        path = kl.export.saved_model(model, folder / f"{name}_{density}")
        variables = size(path / "variables")
        bound = entropy_bound([v.numpy() for v in model.weights])
        print(f"  {density:.0%}: {variables:,} bytes, {variables / bound:.4f} of the bound, "
              f"rest {size(path) - variables:,}")  # fmt: skip


def against_dense(name, build, folder, repeats):
    model, dense = pruned(build, 0.1), build()
    start = time.perf_counter()
    sparse_path = kl.export.saved_model(model, folder / f"{name}_sparse")
    print(f"{name} at 10 %: written in {time.perf_counter() - start:.1f} s")
    dense_path = folder / f"{name}_dense"
    dense.export(str(dense_path), verbose=False)
    print(f"  {size(sparse_path):,} bytes against {size(dense_path):,}")
    loads = {
        "sparse": lambda: tf.saved_model.load(sparse_path),
        "dense": lambda: tf.saved_model.load(dense_path),
    }
    print("  CPU time to load, ", end="")
    common.show_ratio("sparse", common.interleaved(loads, repeats), "dense")
    served = {k: load() for k, load in loads.items()}
    for batch in (1, 32):
        x = tf.random.normal((batch, *model.input_shape[1:]))
        calls = {k: lambda s=s, x=x: s.serve(x) for k, s in served.items()}
        print(f"  CPU time of a call at batch {batch}, ", end="")
        common.show_ratio("sparse", common.interleaved(calls, repeats), "dense")


def memory():
    """In a process of its own, where no memory that others freed can be used again."""
    done = subprocess.run(
        [sys.executable, __file__, "--memory"], capture_output=True, text=True, check=True
    )
    print(done.stdout.strip().splitlines()[-1])


def print_memory():
    model = pruned(resnet50, 0.1)
    model(np.zeros((1, 224, 224, 3), "float32"))
    with tempfile.TemporaryDirectory() as folder, common.Peak() as peak:
        kl.export.saved_model(model, pathlib.Path(folder) / "served")
    weights = sum(v.numpy().nbytes for v in model.weights)
    print(f"resnet50: exporting takes {(peak.most - peak.start) / weights:.2f} times the weights")


def main(_):
    logging.set_verbosity(logging.WARNING)
    if _MEMORY.value:
        return print_memory()
    print(common.about())
    networks = {"lenet": (lenet, 60), "resnet50": (resnet50, 8)}
    with tempfile.TemporaryDirectory() as folder:
        for name, (build, repeats) in networks.items():
            if _MODEL.value in (name, "all"):
                bytes_by_density(name, build, pathlib.Path(folder))
                against_dense(name, build, pathlib.Path(folder), repeats)
    if _MODEL.value != "lenet":
        memory()


if __name__ == "__main__":
    app.run(main)
