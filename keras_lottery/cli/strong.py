"""Finds strong tickets: good networks inside random ones, no weight trained.

Scores are trained (edge_popup, iterand, biprop, supermask, gem_miner), or a random network
is pruned until it computes what a trained one computes (subset_sum).
"""

from pathlib import Path
from typing import Any

import numpy as np
from absl import flags, logging
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keras_lottery.display import RoundTable, say
from keras_lottery.experiments import models, strong_tickets
from keras_lottery.experiments.strong_tickets import METHODS, StrongConfig

_DEFAULT = StrongConfig()
_METHOD = flags.DEFINE_enum("method", _DEFAULT.method, METHODS, "How the ticket is found.")
_DATASET = flags.DEFINE_string(
    "dataset", _DEFAULT.dataset, "digits, the path of an .npz, or a name of tensorflow-datasets."
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where tensorflow-datasets keeps its data.")
_MODEL = flags.DEFINE_string(
    "model",
    _DEFAULT.model,
    f"One of {', '.join(models.NAMED)}, or module:function as for find.",
)
_DENSITY = flags.DEFINE_float(
    "density", _DEFAULT.density, "Of the ticket, in (0, 1]; supermask and subset_sum find theirs."
)
_STEPS = flags.DEFINE_string("steps", _DEFAULT.steps, "Length of a training: 5000it or 20ep.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", _DEFAULT.batch_size, "Images a step.", 1)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", None, "Of the scores, or of subset_sum's target. Default: the method's own."
)
_FINE_TUNE = flags.DEFINE_bool(
    "fine_tune", False, "Train the found ticket's weights afterwards, for as many steps."
)
_CANDIDATES = flags.DEFINE_integer(
    "candidates", _DEFAULT.candidates, "subset_sum: random weights for each weight.", 1, 40
)
_TOLERANCE = flags.DEFINE_float("tolerance", _DEFAULT.tolerance, "subset_sum: of each weight.")
_STRUCTURE = flags.DEFINE_enum(
    "structure", _DEFAULT.structure, ["relu", "linear"], "subset_sum: between the random layers."
)
_SEEDS = flags.DEFINE_integer("seeds", _DEFAULT.seeds, "How many times, with seeds 0, 1, ...", 1)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "A new folder. Default: the first free runs/strong-METHOD-N."
)


def main() -> None:
    """Runs the command with the parsed flags."""
    config = StrongConfig(
        method=_METHOD.value,
        dataset=_DATASET.value,
        model=_MODEL.value,
        density=_DENSITY.value,
        steps=_STEPS.value,
        batch_size=_BATCH_SIZE.value,
        learning_rate=_LEARNING_RATE.value,
        fine_tune=_FINE_TUNE.value,
        candidates=_CANDIDATES.value,
        tolerance=_TOLERANCE.value,
        structure=_STRUCTURE.value,
        seeds=_SEEDS.value,
    )
    quiet = flags.FLAGS["verbosity"].present and logging.get_verbosity() < logging.INFO
    console = Console(quiet=quiet)
    folder = Path(_WORKDIR.value) if _WORKDIR.value else _free(f"strong-{config.method}")
    with _bar(console) as progress:
        task, table = progress.add_task(config.method, total=None), RoundTable(console=console)
        results = strong_tickets.run(
            config,
            folder,
            lambda found: table.add(_row(found)),
            _DATA_DIR.value,
            lambda steps: progress.advance(task, steps),
            lambda total: progress.update(task, total=total),
        )
    _conclude(console, folder, results)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _row(found: dict[str, Any]) -> dict[str, str]:
    return {name.replace("_", " "): _text(name, value) for name, value in found.items()}


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name in ("seed", "steps"):
        return str(value)
    return f"{value:.4g}" if name in ("kept", "largest_error") else f"{value:.2%}"


def _conclude(console: Console, folder: Path, results: list[dict[str, Any]]) -> None:
    say(console, "")
    shown = ("whole", "random_mask", "target", "strong", "fine_tuned")
    for name in (name for name in shown if name in results[0]):
        values = [r[name] for r in results]
        seeds = "1 seed" if len(values) == 1 else f"{len(values)} seeds"
        spread = f"{min(values):.2%} to {max(values):.2%}, {seeds}"
        say(console, f"{name.replace('_', ' '):12} {np.mean(values):.2%}  ({spread})")
    say(console, f"\nresults  {folder / 'results.json'}\ntickets  {folder}/*.safetensors")


def _free(stem: str) -> Path:
    """The first of `runs/STEM-1`, `runs/STEM-2`, ... that does not exist."""
    n = 1
    while (Path("runs") / f"{stem}-{n}").exists():
        n += 1
    return Path("runs") / f"{stem}-{n}"
