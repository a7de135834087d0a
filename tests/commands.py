"""Running the command line in this process, each time as if for the first time."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl.testing import flagsaver

import keras_lottery.cli
from keras_lottery.cli import main

SCRIPT = "import keras_lottery_command as c; c.run()"
NETS = """
import keras
from keras import layers as L

def small(shape, classes):
    return keras.Sequential([keras.Input(shape), L.Flatten(), L.Dense(classes)])

def overflowing(shape, classes):
    last = L.Dense(classes, kernel_initializer=keras.initializers.Constant(3e38))
    return keras.Sequential([keras.Input(shape), L.Flatten(), last])

class Net(keras.Model):
    def __init__(self, classes):
        super().__init__()
        self.flat, self.out = L.Flatten(), L.Dense(classes)

    def call(self, x):
        return self.out(self.flat(x))

def subclassed(shape, classes):
    model = Net(classes)
    model(keras.ops.zeros((1, *shape)))
    return model
"""
TINY = ["--model=command_nets:small", "--steps=6it", "--eval_every=3it", "--batch_size=12"]
TINY += ["--prune_fraction=0.5"]


def make_place(folder, name="tiny.npz"):
    """Writes 60 images of 3x3 and two classes, and the module of models."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (60, 3, 3)).astype(np.uint8), np.arange(60) % 2
    np.savez(folder / name, x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    (folder / "command_nets.py").write_text(NETS)


def forget_commands():
    """The flags of two commands may have one name, as only one is imported in a process."""
    package = keras_lottery.cli
    for name in [n for n in sys.modules if n.startswith(f"{package.__name__}.")]:
        if name != main.__name__:
            del sys.modules[name]
            delattr(package, name.rpartition(".")[2])


def call(*args):
    """The exit code of a command; flags are what they were afterwards."""
    forget_commands()
    with pytest.MonkeyPatch.context() as patch, flagsaver.flagsaver():
        patch.setattr(sys, "argv", ["keras-lottery", *map(str, args)])
        with pytest.raises(SystemExit) as stopped:
            main.run()
    return stopped.value.code


def python(code, *args, cwd=None, **environment):
    """Runs `code` in a new interpreter, its output piped."""
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def files(folder):
    """Each file with its content, what Python compiles left out."""
    found = (p for p in Path(folder).rglob("*") if p.is_file() and p.suffix != ".pyc")
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}
