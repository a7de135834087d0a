"""A run's curves and settings as TensorBoard reads them."""

import importlib.util
from pathlib import Path
from typing import Any

from keras_lottery.experiments.store import TICKET, Store

FOLDER = "tensorboard"


def check_installed() -> None:
    """Raises `ImportError`, naming the extra, unless TensorBoard is there."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ImportError("TensorBoard is missing: pip install 'keras-lottery[tensorboard]'")


def write(store: Store) -> Path:
    """Writes scalars by step and HParams of each finished training, anew.

    Returns:
        The folder to give to `tensorboard --logdir`.

    Raises:
        ImportError: If TensorBoard is not installed.
    """
    check_installed()
    settings = store.config()["settings"]
    root = store.folder / FOLDER
    for record in store.records():
        folder = root / _name(record)
        for old in folder.glob("events.*"):
            old.unlink()
        _write_training(folder, record, settings)
    return root


def _name(record: dict[str, Any]) -> str:
    seed = "" if record["kind"] == TICKET else f"-{record['branch_seed']}"
    kind = record["kind"].replace("/", "_").replace(":", "+")
    return f"replicate_{record['replicate']}/{kind}{seed}/round_{record['round']:02d}"


def _write_training(folder: Path, record: dict[str, Any], settings: dict[str, Any]) -> None:
    import tensorflow as tf
    from tensorboard.plugins.hparams import api as hp

    facts = {"kind": record["kind"], "density": record["density"], "round": record["round"]}
    values = {k: _hparam(v) for k, v in settings.items() if v is not None}
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        hp.hparams({**values, **facts}, trial_id=str(_name(record)))
        curve = record["curve"]
        for name in (name for name in curve if name != "step"):
            for step, value in zip(curve["step"], curve[name], strict=True):
                if value is not None:
                    tf.summary.scalar(name, value, step=step)
        for name, value in record["layer_density"].items():
            tf.summary.scalar(f"density/{name}", value, step=record["first_step"])
    writer.close()


def _hparam(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list) else value
