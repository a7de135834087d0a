"""Writes the report of one run, or of several compared: a page, its figures, its numbers.

RUN is the folder of a run; by default the newest one under runs/.
"""

from pathlib import Path

from absl import flags
from rich.console import Console

from keras_lottery.cli.reading import run_data
from keras_lottery.display import say
from keras_lottery.experiments import reporting, tensorboard
from keras_lottery.experiments.store import Store, newest_run

_FORMAT = flags.DEFINE_enum(
    "format", "html", ["html", "csv", "json"], "A page with figures, or numbers alone, printed."
)
_INTERVAL = flags.DEFINE_enum(
    "interval", "range", ["range", "ci"], "Error bars: min and max, or a 95 % confidence interval."
)
_CURVES = flags.DEFINE_list("curves", [], "Rounds whose learning curves are drawn. Default: a few.")
_OUT = flags.DEFINE_string(
    "out", None, "Folder for the page. Default: the run's; of several runs the folder report/."
)
_TENSORBOARD = flags.DEFINE_bool(
    "tensorboard",
    False,
    "Write scalars and hyperparameters for TensorBoard into the runs' folders.",
)


def main(*run: str) -> None:
    """Runs the command with the parsed flags."""
    console, page = Console(), _FORMAT.value == "html"
    if page:
        reporting.check_installed()
    folders = [Path(r) for r in run] or [newest_run("runs")]
    runs = [run_data(folder) for folder in folders]
    if _TENSORBOARD.value:
        for written in [tensorboard.write(Store(folder)) for folder in folders]:
            if page:
                say(console, f"tensorboard  {written}")
    if not page:
        print(reporting.numbers(runs, _FORMAT.value), end="")
        return
    bad = [r for r in _CURVES.value if not r.isdecimal()]
    if bad:
        raise ValueError(f"`curves` must be indices of rounds, as 0,5,10. Received: {bad}")
    out = Path(_OUT.value or (folders[0] if len(folders) == 1 else "report"))
    rounds = [int(r) for r in _CURVES.value] or None
    path = reporting.write(runs, out, interval=_INTERVAL.value, rounds=rounds)
    for data in runs:
        sizes = data.config["facts"]["sizes"]
        for verdict in reporting.verdicts(data.records, sizes["test"]):
            say(console, f"{data.name}: {verdict.sentence()}")
    say(console, f"report  {path}")
