"""A run's folder as the report takes it."""

from pathlib import Path

from keras_lottery.experiments.analyzing import findings
from keras_lottery.experiments.reporting import RunData
from keras_lottery.experiments.store import Store


def run_data(folder: Path) -> RunData:
    """Settings, facts, finished trainings and findings of a run.

    Raises:
        ValueError: If the folder is no run, or nothing of it has finished.
    """
    store = Store(folder)
    config, records = store.config(), store.records()
    if not records:
        raise ValueError(f"No training of {str(folder)!r} has finished yet.")
    found = findings.read(folder / findings.FOLDER)
    rest = {name: config[name] for name in ("preset", "facts", "versions")}
    return RunData(folder.resolve().name, {**config["settings"], **rest}, records, found)
