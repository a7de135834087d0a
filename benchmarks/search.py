"""What a search of `keras-lottery find` costs beyond its training steps.

LeNet-300-100 with the paper's settings (Adam 1.2e-3, batches of 60). Four questions:

- CPU time of a whole search, evaluated at the end of each round only, over that of as many
  training steps in one go, without pruning, rewinding and saving.
- What evaluating validation and test images every 100 steps adds to training.
- Whether memory grows from round to round, and from control to control.
- With --torch_python: CPU time a step against the same search written in PyTorch, each in
  processes of its own, in turns, with the same number of threads (see `search_torch.py`).
"""

import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile

import common
import numpy as np
import tensorflow as tf
from absl import app, flags

from keras_lottery.experiments.branching import run_branch
from keras_lottery.experiments.checkpoints import Progress
from keras_lottery.experiments.config import Config
from keras_lottery.experiments.plan import Task
from keras_lottery.experiments.searching import Replicate
from keras_lottery.experiments.store import Store
from keras_lottery.experiments.training import Trainer
from keras_lottery.experiments.watching import Silent

_DATA = flags.DEFINE_string("dataset", None, "An .npz like MNIST's. Default: made-up images.")
_STEPS = flags.DEFINE_integer("steps", 1000, "Optimizer steps a round.", 200)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds of a search.", 2)
_TURNS = flags.DEFINE_integer("turns", 3, "How often each thing is timed.", 1)
_TORCH = flags.DEFINE_string("torch_python", None, "A Python that has torch and numpy.")
_THREADS = flags.DEFINE_integer("threads", 1, "Threads of both in the comparison with torch.", 1)
_CHILD = flags.DEFINE_bool("child", False, "One timed search as JSON: a turn of the comparison.")
PAPER, NEVER, WARM_UP, MEMORY_ROUNDS, MEMORY_STEPS = 50_000, 10**9, 200, 12, 100


def made_up(path):
    """Images of MNIST's shape, 55,000 and 10,000, of ten classes that can be learned."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, 65_000)
    classes = rng.random((10, 28, 28), np.float32)
    x = np.uint8(127 * (classes[y] + rng.random((len(y), 28, 28), np.float32)))
    n = 55_000
    np.savez(path, x_train=x[:n], y_train=y[:n], x_test=x[n:], y_test=y[n:])


def trainer_on(dataset):
    return Trainer(Config(dataset=dataset, subset=50_000))


def set_lengths(trainer, steps, every=NEVER):
    trainer.lengths = dataclasses.replace(trainer.lengths, total=steps, evaluate=every)


class Memory(Silent):
    """A watch that notes the resident memory after each training, in MB."""

    def __init__(self):
        self.noted = []

    def row(self, record):
        self.noted.append(common.resident() / 2**20)


def search(trainer, rounds, steps, watch=None, control=None):
    """A search in a folder of its own; then a control of all its tickets."""
    set_lengths(trainer, steps)
    with tempfile.TemporaryDirectory() as folder:
        replicate = Replicate(trainer, Store(folder), 0, watch or Silent())
        replicate.search(rounds)
        if control:
            run_branch(replicate, Task(0, control, 0, tuple(range(1, rounds))))


def train(trainer, steps, every=NEVER):
    set_lengths(trainer, steps, every)
    start = trainer.initial(0)
    trainer.put(start, trainer.full_masks)
    trainer.train(Progress(start), 0, steps)


def show_overhead(trainer):
    rounds, steps = _ROUNDS.value, _STEPS.value
    names = "search", "its steps"
    both = {
        names[0]: lambda: search(trainer, rounds, steps),
        names[1]: lambda: train(trainer, rounds * steps),
    }
    times = common.interleaved(both, _TURNS.value)
    print(f"\nA search of {rounds} rounds of {steps:,} steps, CPU time:")
    common.show_ratio(names[0], times, names[1])
    whole, alone = (np.median(times[name]) / rounds for name in names)
    at_paper = 1 + (whole - alone) / (alone / steps * PAPER)
    print(
        f"{alone / steps * 1e3:.2f} ms a step; {whole - alone:.2f} s a round beyond the steps, "
        f"which makes {at_paper:.3f} at the paper's {PAPER:,} steps a round (aim: 1.1)"
    )


def show_evaluation(trainer):
    steps = _STEPS.value // 100 * 100
    names = "evaluated every 100 steps", "once at the end"
    sizes = [len(p[1]) for p in (trainer.data.validation, trainer.data.test)]
    both = {names[0]: lambda: train(trainer, steps, 100), names[1]: lambda: train(trainer, steps)}
    times = common.interleaved_both(both, 2 * _TURNS.value)
    print(f"\nTraining of {steps:,} steps, {sizes[0]:,} validation and {sizes[1]:,} test images:")
    for i, clock in enumerate(("wall", "CPU")):
        print(f"{clock} time, ", end="")
        common.show_ratio(names[0], {k: t[:, i] for k, t in times.items()}, names[1])
    each = np.median(times[names[0]] - times[names[1]], 0) / (steps / 100 - 1) * 1e3
    print(f"an evaluation: {each[0]:.0f} ms wall, {each[1]:.0f} ms CPU (aim: a third of 100 steps)")


def show_memory(trainer):
    watch, control = Memory(), "reinitialize"
    search(trainer, MEMORY_ROUNDS, MEMORY_STEPS, watch, control)
    late = watch.noted[4:]
    slope = np.polyfit(range(len(late)), late, 1)[0]
    print(f"\nResident memory in MB after each of {MEMORY_ROUNDS} rounds, then of their controls:")
    print(f"{[round(m) for m in watch.noted]}: {slope:+.2f} MB a training after the fourth")


def child(dataset):
    """One timed search, as JSON, like `search_torch.py`."""
    tf.config.threading.set_intra_op_parallelism_threads(_THREADS.value)
    tf.config.threading.set_inter_op_parallelism_threads(_THREADS.value)
    trainer = trainer_on(dataset)
    search(trainer, 2, WARM_UP)
    wall, cpu = common.seconds(lambda: search(trainer, _ROUNDS.value, _STEPS.value))
    n = _ROUNDS.value * _STEPS.value
    print(json.dumps({"wall": wall / n, "cpu": cpu / n}))


def show_torch(dataset):
    folder, shared = pathlib.Path(__file__).parent, []
    for name in ("rounds", "steps", "threads"):
        shared.append(f"--{name}={flags.FLAGS[name].value}")
    shared.append(f"--dataset={dataset}")
    commands = {
        "ours": [sys.executable, folder / "search.py", "--child", *shared],
        "torch": [_TORCH.value, folder / "search_torch.py", *shared],
    }
    found = {name: [] for name in commands}
    for _ in range(_TURNS.value):
        for name, command in commands.items():
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    print(f"\nTorch {found['torch'][0]['torch']}, {_THREADS.value} thread(s) each, whole searches:")
    for clock in ("wall", "cpu"):
        times = {n: np.array([turn[clock] for turn in turns]) for n, turns in found.items()}
        text = ", ".join(f"{n} {np.median(t) * 1e3:.2f} ms" for n, t in times.items())
        print(f"{clock} time a step: {text}; ", end="")
        common.show_ratio("ours", times, "torch")


def main(_):
    with tempfile.TemporaryDirectory() as folder:
        dataset = _DATA.value or f"{folder}/images.npz"
        if not _DATA.value:
            made_up(dataset)
        if _CHILD.value:
            child(dataset)
            return
        print(common.about())
        if _TORCH.value:
            show_torch(dataset)
        trainer = trainer_on(dataset)
        show_overhead(trainer)
        show_evaluation(trainer)
        show_memory(trainer)


if __name__ == "__main__":
    app.run(main)
