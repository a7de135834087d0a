"""Analyses finished runs: numbers as JSON, pictures, and a section of the run's report.

ANALYSIS is one of
  stability     distance and angle between trained copies, of tickets and random masks
  connectivity  the error on the straight line between two trained copies
  anatomy       layers, paths, connections, cost, movement and pixels, round by round
  overlap       how alike tickets are; RUN may also be ticket files or folders of them
  landscape     the loss around a round's trained weights

RUN is the folder of a run; by default the newest one under runs/. Several are compared on a
page of their own. Stability and connectivity train copies of the network, which stay in
RUN/analysis/copies and are never trained twice. --verbosity=-1 prints nothing.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags, logging

from keras_lottery.cli.reading import run_data
from keras_lottery.experiments import reporting
from keras_lottery.experiments.analyzing import (
    anatomy,
    connectivity,
    findings,
    landscape,
    overlap,
    stability,
)
from keras_lottery.experiments.analyzing.findings import Finding
from keras_lottery.experiments.analyzing.runs import Run
from keras_lottery.experiments.live import Live
from keras_lottery.experiments.store import CONFIG, newest_run

ANALYSES: dict[str, Callable[..., Finding]] = {
    "stability": stability.stability,
    "connectivity": connectivity.connectivity,
    "anatomy": anatomy.anatomy,
    "overlap": overlap.overlap,
    "landscape": landscape.landscape,
}
_LINES = 40
_OPTIONS = [
    flags.DEFINE_list(
        "rounds",
        None,
        "Indices of rounds. Default: the one nearest to 10.7 % density; for anatomy dense, the "
        "last and a few between.",
    ),
    flags.DEFINE_list(
        "steps",
        None,
        "The steps k from which copies train, as 0it,500it,2ep. Default: the rewind point. "
        "(stability, connectivity)",
    ),
    flags.DEFINE_integer(
        "orders", None, "Data orders of each copy. Default: 2. (stability, connectivity)", 2
    ),
    flags.DEFINE_integer(
        "replicates",
        None,
        "How many of a run's replicates. Default: all. (stability, connectivity, overlap)",
        1,
    ),
    flags.DEFINE_integer(
        "replicate", None, "Which of a run's replicates. Default: 0. (anatomy, landscape)", 0
    ),
    flags.DEFINE_integer(
        "points",
        None,
        "Points on the line, or on each axis. Default: 30; for landscape 21. (connectivity, "
        "landscape)",
        2,
    ),
    flags.DEFINE_enum(
        "batchnorm",
        None,
        ["interpolate", "recompute"],
        "Statistics of BatchNormalization between networks. Default: interpolate. "
        "(connectivity, landscape)",
    ),
    flags.DEFINE_integer(
        "train_images",
        None,
        "How many training images are measured, besides all test images. Default: 10000. "
        "(connectivity, landscape)",
        1,
    ),
    flags.DEFINE_list(
        "controls", None, "Controls of the run to compare too. Default: none. (overlap)"
    ),
    flags.DEFINE_integer("dimensions", None, "1 or 2. Default: 1. (landscape)", 1, 2),
    flags.DEFINE_float(
        "reach", None, "The largest step along a direction. Default: 1. (landscape)"
    ),
    flags.DEFINE_enum(
        "normalization",
        None,
        ["filter", "layer", "none"],
        "Of the directions. Default: filter. (landscape)",
    ),
    flags.DEFINE_integer("seed", None, "Draws the directions. Default: 0. (landscape)", 0),
    flags.DEFINE_float(
        "checkpoint_seconds",
        None,
        "The least time between two checkpoints of a copy's training. Default: 30. (stability, "
        "connectivity)",
        0.0,
    ),
]
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where tensorflow-datasets keeps its data. Default: its own folder."
)
_OUT = flags.DEFINE_string(
    "out", None, "Folder for a page of its own. Default: the run's; of several analysis/."
)


def main(analysis: str | None = None, *run: str) -> None:
    """Runs the command with the parsed flags."""
    if analysis not in ANALYSES:
        raise ValueError(
            f"Name one of the analyses: {', '.join(ANALYSES)}. Received: {analysis or 'none'}"
        )
    reporting.check_installed()
    function = ANALYSES[analysis]
    options = _options(analysis, function)
    folders = [Path(r) for r in run] or [newest_run("runs")]
    sources: list[Any] = list(folders)
    if analysis != "overlap":
        sources = _runs(folders)
    quiet = flags.FLAGS["verbosity"].present and logging.get_verbosity() < logging.INFO
    with Live(quiet, repeated=True) as live:
        try:
            found = function(sources, live, **options)
        except KeyboardInterrupt:
            live.say("Interrupted. What has finished is kept; the same command goes on.")
            raise
        _write(found, folders, live)


def _options(analysis: str, function: Callable[..., Finding]) -> dict[str, Any]:
    """The flags given, if all of them go with the analysis: its own parameters."""
    options = {}
    for flag in (f for f in _OPTIONS if f.value is not None):
        with_it = [n for n, f in ANALYSES.items() if flag.name in inspect.signature(f).parameters]
        if analysis not in with_it:
            raise ValueError(
                f"--{flag.name} does not go with {analysis}. It goes with: {', '.join(with_it)}"
            )
        options[flag.name] = flag.value
    bad = [r for r in options.get("rounds", []) if not r.isdecimal()]
    if bad:
        raise ValueError(f"`rounds` must be indices, as 0,5,10. Received: {bad}")
    if "rounds" in options:
        options["rounds"] = [int(r) for r in options["rounds"]]
    return options


def _runs(folders: list[Path]) -> list[Run]:
    """The runs, their settings read; each needs a name of its own."""
    runs = [Run(folder, _DATA_DIR.value) for folder in folders]
    names = [r.name for r in runs if r.records]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"Every run needs its own name. Received twice: {twice}")
    return runs


def _write(found: Finding, folders: list[Path], live: Live) -> None:
    """The finding beside the run, or on a page of its own; says where, and its first table."""
    alone = len(folders) == 1 and (folders[0] / CONFIG).exists() and not _OUT.value
    folder = folders[0] / findings.FOLDER if alone else Path(_OUT.value or findings.FOLDER)
    path = found.write(folder)
    if alone:
        page = reporting.write([run_data(folders[0])], folders[0])
    else:
        page = reporting.write_findings(findings.read(folder), "Analyses", folder)
    lines = found.tables[0].lines()
    live.say("")
    for line in lines[:_LINES]:
        live.say(line)
    if len(lines) > _LINES:
        live.say(f"and {len(lines) - _LINES} rows more on the page")
    live.say(f"\nnumbers   {path}")
    for picture in found.pictures:
        live.say(f"picture   {folder / picture.name}.png")
    live.say(f"{'report' if alone else 'page':9} {page}")
