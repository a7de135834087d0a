"""Trains controls of a run that is there: other weights, other masks, other trainings.

RUN is the folder of a run; by default the newest one under runs/.
--verbosity=-1 prints nothing.
"""

from pathlib import Path

from absl import flags

from keras_lottery.cli import running
from keras_lottery.experiments import runner
from keras_lottery.experiments.plan import Plan, control_names
from keras_lottery.experiments.store import Store, newest_run

flags.adopt_module_key_flags(running)
_CONTROLS = flags.DEFINE_list(
    "controls",
    [],
    "Comma-separated, with options as noise:scale=0.5 or transfer:dataset=mnist. They are: "
    f"{', '.join(control_names())}.",
)
_ROUNDS = flags.DEFINE_list("rounds", [], "Of which rounds' tickets. Default: all.")


def main(run: str | None = None) -> None:
    """Runs the command with the parsed flags."""
    if not _CONTROLS.value:
        raise ValueError(f"Name --controls. They are: {', '.join(control_names())}")
    folder = Path(run) if run else newest_run("runs")
    there = Plan.from_dict(Store(folder).config()["plan"])
    branches = running.branches(_CONTROLS.value, _ROUNDS.value)
    if any(int(r) >= there.rounds for r in _ROUNDS.value):
        raise ValueError(
            f"{str(folder)!r} has the rounds 0 to {there.rounds - 1}. Received: "
            f"--rounds={','.join(_ROUNDS.value)}"
        )
    plan = Plan(there.rounds, there.replicates, branches)
    with running.live(folder, plan.replicates > 1) as live:
        runner.go_on(folder, plan, live, **running.options())
