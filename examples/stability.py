"""How stable LeNet-300-100 is at 10.7 % density, beside the papers' values.

Finds tickets on MNIST by iterative pruning, rewound to the initialization. Then trains copies
of the dense network, the ticket and a random mask in two data orders, and prints LeNet's row of
"Stabilizing the LTH" (1903.01611, figures 3 and 10) and the error barrier at k = 0 of "Linear
Mode Connectivity" (1912.05671). --scale=1 trains the paper's 50,000 steps. What was cut off goes
on with the same command; `keras-lottery find` and `analyze` do the same from the shell.

    python examples/stability.py --dataset=mnist.npz --scale=0.1 --workdir=runs/stability
"""

import math
import tempfile
from pathlib import Path

from absl import app, flags

from keras_lottery.experiments import presets, runner
from keras_lottery.experiments.analyzing.connectivity import connectivity
from keras_lottery.experiments.analyzing.runs import Run
from keras_lottery.experiments.analyzing.stability import stability
from keras_lottery.experiments.config import Config
from keras_lottery.experiments.live import Live
from keras_lottery.experiments.plan import Plan
from keras_lottery.experiments.work import device

_DATASET = flags.DEFINE_string("dataset", "digits", "An .npz like MNIST; default: the digits.")
_SCALE = flags.DEFINE_float("scale", 0.1, "Length of a training: 1 is the paper's.")
_REPLICATES = flags.DEFINE_integer("replicates", 3, "Searches, each with a seed of its own.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; default: a temporary one.")
_TINY = flags.DEFINE_bool("tiny", False, "A few steps on the digits, to see that it runs.")
ROUND = 10  # 0.8 ** 10 = 10.7 %
# (compared with, ticket's distance, random mask's, ticket's angle, random mask's); LeNet, k = 0
PAPER = {"order": ("20.7", "58.6", "22.7", "49.2"), "pruning": ("48.1", "75.7", "53.1", "83.6")}


def main(argv):
    tiny = _TINY.value
    preset = presets.preset("stabilizing/lenet")
    own = (
        {"dataset": "digits", "steps": "30it", "eval_every": "30it"}
        if tiny
        else {"dataset": _DATASET.value, "eval_every": "500it"}
    )
    config = Config(**{**preset.settings, **own}).scaled(1 if tiny else _SCALE.value)
    plan = Plan(3 if tiny else ROUND + 1, 1 if tiny else _REPLICATES.value)
    folder = Path(_WORKDIR.value or tempfile.mkdtemp())
    with Live(repeated=True) as live:
        runner.run(config, plan, folder, live, preset="stabilizing/lenet")
        runs, rounds = [Run(folder)], [plan.rounds - 1]
        rows = stability(runs, live, rounds=rounds).numbers["rows"]
        lines = connectivity(runs, live, rounds=rounds, points=3 if tiny else 30).numbers["rows"]
    facts = Run(folder).config["facts"]
    print(f"\n{facts['total_steps']:,} steps a training, {plan.replicates} replicates, {device()}")
    print_stability(rows)
    print_barriers(lines)


def print_stability(rows):
    found = {(row["what"], row["kind"]): row for row in rows}
    print(
        "\nstability to    measure        ticket         random mask     ratio   paper, 50,000 it"
    )
    for what, paper in PAPER.items():
        for i, measure in enumerate(("distance", "angle")):
            ticket, random = (found[what, kind] for kind in ("ticket", "random_mask"))
            own, chance = paper[2 * i : 2 * i + 2]
            ratio = random[f"{measure}_mean"] / ticket[f"{measure}_mean"]
            print(
                f"{what:14}  {measure:9} {spread(ticket, measure)}  {spread(random, measure)}"
                f"   {ratio:5.2f}   {own} / {chance} ({float(chance) / float(own):.2f})"
            )


def spread(row, name, scale=1):
    mean, std = (row[f"{name}_{of}"] for of in ("mean", "std"))
    known = std is not None and not math.isnan(std)
    return f"{scale * mean:7.2f} " + (f"± {scale * std:5.2f}" if known else 7 * " ")


def print_barriers(rows):
    print("\nerror barrier at k = 0, points   test             train           paper: below 1")
    for row in rows:
        parts = (spread(row, f"barrier_{part}", 100) for part in ("test", "train"))
        print(f"{row['kind']:30} {'  '.join(parts)}")


if __name__ == "__main__":
    app.run(main)
