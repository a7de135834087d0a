"""Writes a ticket as files to deploy: smaller, and measured beside the dense network.

TICKET_OR_RUN is a .safetensors file or the folder of a run; by default the newest run under
runs/. Of a run the trained weights of one round are exported, by default of the sparsest
one that is about as good as the dense network on the validation images.
"""

import os
import tempfile
from pathlib import Path

from absl import flags
from rich.console import Console

from keras_lottery import export
from keras_lottery.display import say
from keras_lottery.experiments import deploying, report
from keras_lottery.experiments.store import newest_run

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
_MEASURE = flags.DEFINE_bool(
    "measure", False, "Print the table of sizes and speeds, dense beside each; write it as JSON."
)
_REPEATS = flags.DEFINE_integer("repeats", 30, "Timed calls of each.", lower_bound=1)
_ARCHITECTURE = flags.DEFINE_string(
    "architecture", None, "A .keras file of the model, for a ticket that does not name its model."
)
_OUT = flags.DEFINE_string("out", None, "Folder to write to. Default: export/ beside the tickets.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace files that are there.")


def main(ticket_or_run: str | None = None) -> None:
    """Runs the command with the parsed flags."""
    console = Console()
    if _MEASURE.value:
        report.check_installed()
    found = deploying.source(ticket_or_run or newest_run("runs"), _ROUND.value, _TOLERANCE.value)
    say(console, found.words)
    model = deploying.build(found.ticket, _ARCHITECTURE.value)
    folder = Path(_OUT.value or found.folder)
    paths = deploying.write(
        model,
        _FORMAT.value,
        folder,
        found.stem,
        _OVERWRITE.value,
        lambda text: say(console, text),
    )
    if _MEASURE.value:
        with tempfile.TemporaryDirectory() as scratch:
            dense = deploying.dense_counterparts(model, list(paths), Path(scratch))
            table = export.measure(paths, model, dense, repeats=_REPEATS.value)
        stem = os.fspath(folder / f"{found.stem}_measured")
        table.save(f"{stem}.json")
        table.plot(f"{stem}.png")
        say(console, f"\ntable   {stem}.json\npicture {stem}.png")
