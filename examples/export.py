"""From a ticket to what is deployed: each file is loaded and run without this package.

python examples/export.py
"""

import pathlib
import subprocess
import sys
import tempfile

import keras
import numpy as np
from absl import app, flags, logging
from sklearn.datasets import load_digits

import keras_lottery as kl

_TINY = flags.DEFINE_bool("tiny", False, "One epoch a round, to see that it runs.")

# What a server would run. It imports TensorFlow or Keras, never keras_lottery.
CLIENTS = {
    "sparse.keras": """
import keras, numpy as np
model = keras.saving.load_model("sparse.keras")
logits = model(np.load("x.npy"), training=False)
""",
    "sparse_saved_model": """
import numpy as np, tensorflow as tf
served = tf.saved_model.load("sparse_saved_model")
logits = served.serve(tf.constant(np.load("x.npy")))
""",
    "sparse.tflite": """
import warnings, numpy as np, tensorflow as tf
warnings.simplefilter("ignore")
runner = tf.lite.Interpreter("sparse.tflite").get_signature_runner()
(name,) = runner.get_input_details()
(logits,) = runner(**{name: np.load("x.npy")}).values()
""",
    "compact.keras": """
import keras, numpy as np
model = keras.saving.load_model("compact.keras")
logits = model(np.load("x.npy"), training=False)
""",
}
CHECK = """
import sys
assert "keras_lottery" not in sys.modules
print("test accuracy", np.mean(np.argmax(logits, -1) == np.load("y.npy")))
"""


def build():
    model = keras.Sequential(
        [
            keras.Input((64,), name="pixels"),
            keras.layers.Dense(300, activation="relu"),
            keras.layers.Dense(100, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1.2e-3), loss, metrics=["accuracy"])
    return model


def main(_):
    logging.set_verbosity(logging.WARNING)  # TensorFlow tells of every SavedModel it writes
    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order].astype("float32") / 16, y[order]
    epochs, rounds = (1, 3) if _TINY.value else (15, 15)
    model = build()
    lottery = kl.LotteryCallback(epochs, prune_fraction=0.2, scope="layerwise")
    model.fit(x[:1297], y[:1297], 60, epochs * rounds, verbose=0, callbacks=[lottery])
    folder = pathlib.Path(tempfile.mkdtemp())
    np.save(folder / "x.npy", x[1297:])
    np.save(folder / "y.npy", y[1297:])

    files = {
        "Keras file": kl.export.keras(model, folder / "sparse.keras", compress=True),
        "SavedModel": kl.export.saved_model(model, folder / "sparse_saved_model"),
        "LiteRT": kl.export.litert(model, folder / "sparse.tflite"),
        "compact": kl.export.keras(kl.export.compact(model), folder / "compact.keras"),
    }
    for path in files.values():
        code = CLIENTS[path.name] + CHECK
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True
        )
        print(f"{path.name:20} {done.stdout.strip() or done.stderr}")
        assert done.returncode == 0

    dense = build()  # the same network, nothing pruned
    dense.export(str(folder / "dense_saved_model"), verbose=False)
    beside = {
        "Keras file": kl.export.keras(dense, folder / "dense.keras"),
        "SavedModel": folder / "dense_saved_model",
        "LiteRT": kl.export.litert(dense, folder / "dense.tflite", sparse=False),
    }
    table = kl.export.measure(files, reference=model, dense=beside)
    table.save(folder / "measured.json")
    table.plot(folder / "measured.png")
    print(f"files, table and picture: {folder}")


if __name__ == "__main__":
    app.run(main)
