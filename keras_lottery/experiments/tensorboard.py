"""A run's curves and settings as TensorBoard reads them."""

import importlib.util
from pathlib import Path
from typing import Any

from keras_lottery.experiments.store import Store

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
        name = _name(store, record)
        folder = root / name
        for old in folder.glob("events.*"):
            old.unlink()
        _write_training(folder, name, record, settings)
    return root


def _name(store: Store, record: dict[str, Any]) -> str:
    """The training's folder within the run's."""
    names = ("replicate", "round", "kind", "branch_seed")
    place = store.place(*(record[name] for name in names))
    return place.folder.relative_to(store.folder).as_posix()


def _write_training(
    folder: Path, name: str, record: dict[str, Any], settings: dict[str, Any]
) -> None:
    import tensorflow as tf
    from tensorboard.plugins.hparams import api as hp

    facts = {"kind": record["kind"], "density": record["density"], "round": record["round"]}
    values = {k: _hparam(v) for k, v in settings.items() if v is not None}
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        hp.hparams({**values, **facts}, trial_id=name)
        curve = record["curve"]
        for key in (key for key in curve if key != "step"):
            for step, value in zip(curve["step"], curve[key], strict=True):
                if value is not None:
                    tf.summary.scalar(key, value, step=step)
        for path, value in record["layer_density"].items():
            tf.summary.scalar(f"density/{path}", value, step=record["first_step"])
    writer.close()


def _hparam(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list) else value
