"""Runs an experiment into its folder, or goes on with it."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from keras_lottery import versions
from keras_lottery.experiments import pool
from keras_lottery.experiments.branching import check_branch
from keras_lottery.experiments.config import FORMAT, Config, from_dict
from keras_lottery.experiments.live import Live
from keras_lottery.experiments.plan import Plan
from keras_lottery.experiments.store import CONFIG, Store
from keras_lottery.experiments.work import Job


def run(
    config: Config,
    plan: Plan,
    folder: str | Path,
    live: Live,
    jobs: int = 1,
    preset: str | None = None,
    data_dir: str | None = None,
    checkpoint_seconds: float = 30.0,
) -> Store:
    """Finds tickets and trains their controls; what is done already is left as it is.

    A training that was cut off goes on from its last checkpoint, to the same bits.

    Args:
        config: All settings of a training.
        plan: How much is to be done; what a folder's earlier plan asked for is done too.
        folder: The run's folder, new or of the same settings.
        live: Shows the run.
        jobs: Processes that work at the same time.
        preset: Its name, for people.
        data_dir: Where tensorflow-datasets keeps its data.
        checkpoint_seconds: The least time between two checkpoints of a training.

    Returns:
        The run's folder, everything of the plan in it but what NaN stopped.

    Raises:
        ValueError: Before anything is trained, for settings that cannot work, a folder of
            other settings or data, or one that another process works on. Later, if a file
            cannot be written: then the same command goes on once it can.
    """
    config, store = config.complete(), Store(folder)
    job = Job(str(folder), config, data_dir, checkpoint_seconds)
    trainer = job.trainer()  # refuses what cannot work, before the folder is made
    for branch in plan.branches:
        check_branch(trainer, branch.control, data_dir)
    new = not (store.folder / CONFIG).exists()
    if new:
        store.save_config(_about(job, plan, preset))
    lock = store.lock()
    try:
        about = store.config()
        _check_same(about, config, job.facts()["data"], store.folder)
        _remove_half_written(store.folder)
        plan = Plan.from_dict(about["plan"]).joined(plan)
        store.save_config({**about, "plan": plan.to_dict()})
        pool.do_all(job, plan.searches(), live, jobs)
        pool.do_all(job, plan.controls(), live, jobs)
    except OSError as error:
        raise ValueError(
            f"Cannot write to {str(folder)!r}: {error}. What has finished is kept; the same "
            "command goes on from there."
        ) from error
    finally:
        lock.release()
    return store


def go_on(folder: str | Path, plan: Plan, live: Live, **options: Any) -> Store:
    """Does more of a run: `plan` is joined with what the run's folder asks for."""
    about = Store(folder).config()
    joined = Plan.from_dict(about["plan"]).joined(plan)
    return run(from_dict(about["settings"]), joined, folder, live, **options)


def _remove_half_written(folder: Path) -> None:
    """Removes what killed processes were writing; the lock is held, so nobody writes now."""
    for path in folder.glob("replicate_*/**/.*"):
        if re.fullmatch(r"\..+\.\d+\.[0-9a-f]{8}", path.name):
            path.unlink()


def _about(job: Job, plan: Plan, preset: str | None) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "preset": preset,
        "settings": asdict(job.config),
        "plan": plan.to_dict(),
        "facts": job.facts(),
        "versions": versions.versions(),
    }


def _check_same(about: dict[str, Any], config: Config, data: str, folder: Path) -> None:
    there = from_dict(about["settings"])
    if there != config:
        other = {k: v for k, v in asdict(there).items() if v != asdict(config)[k]}
        raise ValueError(
            f"{str(folder)!r} is a run of other settings: {other}. Choose another folder "
            "(--workdir), or give the same settings to go on."
        )
    if about["facts"]["data"] != data:
        raise ValueError(
            f"{str(folder)!r} was made with other data of the name {config.dataset!r}: its "
            f"fingerprint is {about['facts']['data']}, now it is {data}."
        )
