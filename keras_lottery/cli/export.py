"""Writes a ticket as files to deploy: smaller, and measured beside the dense network.

TICKET_OR_RUN is a .safetensors file or the folder of a run; by default the newest run under
runs/. Of a run the trained weights of one round are exported, by default of the sparsest
one that is about as good as the dense network on the validation images.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import keras
from absl import flags
from rich.console import Console

from keras_lottery import export
from keras_lottery.display import say
from keras_lottery.experiments import deploying
from keras_lottery.experiments.store import newest_run
from keras_lottery.export import charts

_FORMAT = flags.DEFINE_list(
    "format", ["saved_model"], f"Comma-separated: {', '.join(deploying.WRITERS)}."
)
_ROUND = flags.DEFINE_string(
    "round",
    "best",
    "Of a run: best (the sparsest within --tolerance of the dense validation accuracy), last, "
    "or an index.",
)
_TOLERANCE = flags.DEFINE_float(
    "tolerance", 0.01, "How much lower the validation accuracy may be: 0.01 is one point."
)
_REPLICATE = flags.DEFINE_integer("replicate", 0, "Of a run: which of its searches.", 0)
_MEASURE = flags.DEFINE_bool(
    "measure", False, "Print the table of sizes and speeds, dense beside each; write it as JSON."
)
_REPEATS = flags.DEFINE_integer("repeats", 30, "Timed calls of each.", lower_bound=1)
_ARCHITECTURE = flags.DEFINE_string(
    "architecture",
    None,
    "The model, for a ticket that does not name one of this package's: a .keras file, or "
    "module:function as for find.",
)
_OUT = flags.DEFINE_string("out", None, "Folder to write to. Default: export/ beside the tickets.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace files that are there.")


def main(ticket_or_run: str | None = None) -> None:
    """Runs the command with the parsed flags."""
    console = Console()
    if _MEASURE.value:
        charts.check_installed()
    found = _source(ticket_or_run)
    say(console, found.words)
    model = deploying.build(found.ticket, _ARCHITECTURE.value or found.architecture)
    if _MEASURE.value:
        deploying.check_measurable(model)
    folder = Path(_OUT.value or found.folder)
    table, picture = (folder / f"{found.stem}_measured{end}" for end in (".json", ".png"))
    with _python_alone_on_stderr():
        paths = deploying.write(
            model,
            _FORMAT.value,
            folder,
            found.stem,
            _OVERWRITE.value,
            lambda text: say(console, text),
            also=[table, picture] if _MEASURE.value else [],
        )
        if _MEASURE.value:
            say(console, "\nmeasuring, dense beside each")
            measured = _measured(model, paths)
            measured.save(table, _OVERWRITE.value)
            measured.plot(picture, _OVERWRITE.value)
            say(console, f"\ntable   {table}\npicture {picture}")


def _source(ticket_or_run: str | None) -> deploying.Source:
    path = Path(ticket_or_run) if ticket_or_run else newest_run("runs")
    given = [f"--{flag.name}" for flag in (_ROUND, _TOLERANCE, _REPLICATE) if flag.present]
    if given and path.is_file():
        raise ValueError(
            f"{' and '.join(given)} can choose a round of a run only. Received: {str(path)!r}, a "
            "ticket."
        )
    return deploying.source(path, _ROUND.value, _TOLERANCE.value, _REPLICATE.value)


def _measured(model: keras.Model, paths: Mapping[str, Path]) -> export.Measurements:
    with tempfile.TemporaryDirectory() as scratch:
        dense = deploying.dense_counterparts(model, list(paths), Path(scratch))
        return export.measure(paths, model, dense, repeats=_REPEATS.value)


@contextlib.contextmanager
def _python_alone_on_stderr() -> Iterator[None]:
    """Sends what C++ writes to the standard error nowhere: LiteRT tells of its delegate there."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        with os.fdopen(kept, "w", closefd=False) as shown:
            python = contextlib.redirect_stderr(shown) if sys.stderr is sys.__stderr__ else None
            with python or contextlib.nullcontext():
                os.dup2(nowhere, 2)
                yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
