"""Flags of how a run is run, whatever its settings; and what is said at its end."""

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags, logging

from keras_lottery.cli.reading import run_data
from keras_lottery.experiments import plan, reporting, tensorboard
from keras_lottery.experiments.live import Live
from keras_lottery.experiments.status import status
from keras_lottery.experiments.store import REPORT, Store

_CONTROL_SEEDS = flags.DEFINE_integer(
    "control_seeds", 1, "How many times each control is drawn and trained.", 1
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where tensorflow-datasets keeps its data. Default: its own folder."
)
_JOBS = flags.DEFINE_integer(
    "jobs", 1, "Processes that work at the same time, each with its share of threads.", 1
)
_CHECKPOINT = flags.DEFINE_float(
    "checkpoint_seconds", 30.0, "The least time between two checkpoints of a training.", 0.0
)
_TENSORBOARD = flags.DEFINE_bool(
    "tensorboard", False, "Write scalars and hyperparameters for TensorBoard into the run's folder."
)


def branches(controls: list[str], rounds: list[str]) -> tuple[plan.Branch, ...]:
    """The branches of a command's controls.

    Raises:
        ValueError: For an unknown control, or a round that is no number.
    """
    bad = [r for r in rounds if not r.isdecimal()]
    if bad:
        raise ValueError(f"`rounds` must be indices, as 1,5,10. Received: {bad}")
    return plan.branches(controls, _CONTROL_SEEDS.value, [int(r) for r in rounds])


def options() -> dict[str, Any]:
    """How a run is run."""
    return {
        "jobs": _JOBS.value,
        "data_dir": _DATA_DIR.value,
        "checkpoint_seconds": _CHECKPOINT.value,
    }


@contextlib.contextmanager
def live(folder: Path, repeated: bool) -> Iterator[Live]:
    """What shows a run; at its end, or when it is interrupted, its report is written."""
    reporting.check_installed()
    if _TENSORBOARD.value:
        tensorboard.check_installed()
    quiet = flags.FLAGS["verbosity"].present and logging.get_verbosity() < logging.INFO
    store, ended = Store(folder), False
    before = len(store.records())
    with Live(quiet, repeated) as shown:
        shown.say(f"run  {folder}\n")
        try:
            yield shown
            ended = True
        except KeyboardInterrupt:
            shown.say("Interrupted. The same command goes on from here.")
            raise
        finally:
            now = len(store.records())
            if ended and now == before:
                shown.say(_why_nothing(store, now))
            if now > before or (ended and now):
                _conclude(store, shown)


def _why_nothing(store: Store, done: int) -> str:
    """Why a run that has ended trained nothing."""
    stopped = [s.stopped for s in status(store).states if s.stopped]
    if stopped and not done:
        raise ValueError(f"No training has finished. {stopped[0]}")
    if stopped:
        return "nothing to do: what is missing comes after a search that stopped"
    trainings = "1 training is" if done == 1 else f"all {done} trainings are"
    return f"nothing to do: {trainings} done"


def _conclude(store: Store, live: Live) -> None:
    run = run_data(store.folder)
    reporting.write([run], store.folder)
    live.say("")
    for verdict in reporting.verdicts(run.records, run.config["facts"]["sizes"]["test"]):
        live.say(verdict.sentence())
    if _TENSORBOARD.value:
        live.say(f"\ntensorboard  {tensorboard.write(store)}")
    live.say(f"\nreport   {store.folder / REPORT}")
    live.say(f"tickets  {store.folder}/replicate_*/ticket/round_*/ticket.safetensors")
    live.say(f"export   keras-lottery export {shlex.quote(str(store.folder))} --measure")
