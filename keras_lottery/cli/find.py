"""Finds lottery tickets on a data set: train, prune, rewind, repeat, then the controls.

Without flags: LeNet-300-100 on scikit-learn's 1,797 handwritten digits. The same command
again goes on where the run was, with larger --rounds or --replicates or other --controls too.
--verbosity=-1 prints nothing.
"""

from pathlib import Path

from absl import flags

from keras_lottery.cli import running, settings
from keras_lottery.experiments import runner
from keras_lottery.experiments.plan import Plan, control_names

flags.adopt_module_key_flags(settings)
flags.adopt_module_key_flags(running)
_ROUNDS = flags.DEFINE_integer(
    "rounds",
    None,
    "Trainings of a search, the dense one included. Default: the preset's, else 16.",
    lower_bound=1,
)
_REPLICATES = flags.DEFINE_integer("replicates", 1, "Searches, each with a seed of its own.", 1)
_CONTROLS = flags.DEFINE_list(
    "controls",
    [],
    "Comma-separated, at every density, with options as noise:scale=0.5. They are: "
    f"{', '.join(control_names())}.",
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "The run's folder. Default: runs/NAME-HASH, by preset and all settings."
)


def main() -> None:
    """Runs the command with the parsed flags."""
    config = settings.config()
    plan = Plan(
        settings.rounds(_ROUNDS.value),
        _REPLICATES.value,
        running.branches(_CONTROLS.value, []),
    )
    folder = Path(_WORKDIR.value) if _WORKDIR.value else settings.folder(config)
    with running.live(folder, plan.replicates > 1) as live:
        preset = settings.preset_name()
        runner.run(config, plan, folder, live, preset=preset, **running.options())
