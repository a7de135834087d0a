"""tfmot and tf_keras are optional, imported late, and change nothing of the process."""

import os
import subprocess
import sys

UNCHANGED = """
import os, sys, warnings
warnings.simplefilter("error")
import keras_lottery
assert not any(m in sys.modules for m in ("tf_keras", "tensorflow_model_optimization"))
before = dict(os.environ)
from keras_lottery.tfmot.importing import load
import tensorflow as tf
assert dict(os.environ) == before, "the environment changed"
assert tf.keras.__version__ == keras_lottery.versions.versions()["keras"], tf.keras.__version__
assert load().keras.__version__.startswith("2."), load().keras.__version__
assert load() is load()
"""

MISSING = """
import sys

class Hide:
    hidden = None

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == self.hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, hide := Hide())
import numpy as np, keras, keras_lottery as kl
for hide.hidden in ("tf_keras", "tensorflow_model_optimization"):
    try:
        kl.tfmot
    except ImportError as error:
        print(error)
    for name in [m for m in sys.modules if m.startswith(("tensorflow_model_opt", "tf_keras"))]:
        del sys.modules[name]
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
print(kl.prune(model, 0.5).masks)
from keras_lottery import *
model.compile("sgd", "mse")
def train(model, callbacks):
    return model.fit(np.ones((2, 2)), np.ones((2, 2)), verbose=0, callbacks=callbacks)
found = find_ticket(strip(model), train, 2, prune_fraction=0.5, verbose=0)
print([r.density for r in found.rounds])
"""


def run(script):
    env = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=env, capture_output=True, text=True)


def test_importing_tfmot_leaves_environment_and_tf_keras_alone():
    done = run(UNCHANGED)
    assert done.returncode == 0, done.stderr


def test_without_tfmot_or_tf_keras_an_error_names_the_extra_and_the_rest_works():
    done = run(MISSING)
    assert done.returncode == 0, done.stderr
    no_keras, no_tfmot, masks, *_, densities = done.stdout.splitlines()
    for message, missing in ((no_keras, "tf_keras"), (no_tfmot, "tensorflow_model_optimization")):
        assert repr(missing) in message
        assert "pip install 'keras-lottery[tfmot]'" in message
    assert "dense/kernel" in masks and densities == "[1.0, 0.5]"
