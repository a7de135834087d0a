"""From a run or a ticket file to exported files and their measured table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from keras_lottery import export
from keras_lottery.experiments import models
from keras_lottery.experiments.store import Store, sparsest_within
from keras_lottery.tickets import Ticket

Say = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """What is exported.

    Attributes:
        ticket: Masks, weights, and how the model is built.
        stem: What the files are called.
        folder: Where they go unless asked otherwise.
        words: A sentence on where it comes from.
    """

    ticket: Ticket
    stem: str
    folder: Path
    words: str


def source(path: str | Path, round: str = "best", tolerance: float = 0.01) -> Source:
    """A ticket file, or a round of a run's folder with its trained weights.

    Args:
        path: A `.safetensors` file, or the folder of a run.
        round: Of a run: `"best"`, the sparsest round whose validation accuracy is at most
            `tolerance` below the dense one's; `"last"`; or an index.
        tolerance: In [0, 1].

    Raises:
        ValueError: If there is nothing at the path, or no such round.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise ValueError(f"There is no run and no ticket at {str(path)!r}.")
        ticket = Ticket.load(path)
        trained = ticket.metadata.get("weights") == "trained"
        words = f"{path}: {ticket.density:.2%} density, " + (
            "trained weights" if trained else "the weights of the rewind point, not trained"
        )
        return Source(ticket, path.stem, path.parent / "export", words)
    store = Store(path)
    records = {r["round"]: r for r in store.records() if r["kind"] == "ticket"}
    if not records:
        raise ValueError(f"{str(path)!r} is not the folder of a run, or no round has finished.")
    index = _round(round, list(records.values()), tolerance)
    if index not in records:
        raise ValueError(f"The run has rounds {sorted(records)}. Received: {round}")
    ticket = Ticket.load(store.trained_path(index))
    return Source(ticket, f"round_{index:02d}", path / "export", _words(records, index))


def _round(text: str, records: list[dict[str, Any]], tolerance: float) -> int:
    if text == "best":
        return sparsest_within(records, tolerance)
    if text == "last":
        return max(int(r["round"]) for r in records)
    if not text.isdecimal():
        raise ValueError(f"`round` must be best, last or an index. Received: {text!r}")
    return int(text)


def _words(records: dict[int, dict[str, Any]], index: int) -> str:
    dense, chosen = (records[i] for i in (min(records), index))
    return (
        f"round {index}: {chosen['density']:.2%} density, validation accuracy "
        f"{chosen['val_accuracy']:.2%} (dense {dense['val_accuracy']:.2%}), test accuracy "
        f"{chosen['test_accuracy']:.2%} (dense {dense['test_accuracy']:.2%})"
    )


def build(ticket: Ticket, architecture: str | None = None) -> keras.Model:
    """The model of a ticket, its weights and masks applied.

    Args:
        ticket: With `metadata["model"]` as `keras-lottery find` writes it.
        architecture: Path of a `.keras` file of the model instead.

    Raises:
        ValueError: If it is not known how to build the model, or the ticket is of another.
    """
    about = ticket.metadata.get("model")
    if architecture is not None:
        try:
            model = keras.saving.load_model(architecture, compile=False)
        except (OSError, TypeError) as error:
            raise ValueError(f"Cannot load the model {architecture!r}: {error}") from error
    elif isinstance(about, dict):
        model = models.build(about["name"], tuple(about["input_shape"]), about["classes"])
    else:
        raise ValueError(
            "The ticket does not say how its model is built. Save the model with "
            "`model.save('model.keras')` and name that file: --architecture=model.keras"
        )
    ticket.apply(model)
    return model


WRITERS: dict[str, tuple[str, Callable[..., Any]]] = {
    "keras": (".keras", lambda model, path, overwrite: export.keras(
        model, path, compress=True, overwrite=overwrite)),
    "saved_model": ("_saved_model", lambda model, path, overwrite: export.saved_model(
        model, path, overwrite=overwrite)),
    "litert": (".tflite", lambda model, path, overwrite: export.litert(
        model, path, overwrite=overwrite)),
    "compact": ("_compact.keras", lambda model, path, overwrite: export.keras(
        export.compact(model, verbose=0), path, compress=True, overwrite=overwrite)),
}  # fmt: skip


def write(
    model: keras.Model,
    formats: Sequence[str],
    folder: Path,
    stem: str,
    overwrite: bool = False,
    say: Say = print,
) -> dict[str, Path]:
    """Writes each format into a folder, made if need be.

    Returns:
        Dict of format to path.

    Raises:
        ValueError: Before anything is written, if a format is unknown or something is in
            the way.
    """
    unknown = [f for f in formats if f not in WRITERS]
    if unknown or not formats:
        raise ValueError(f"Formats are {', '.join(WRITERS)}. Received: {', '.join(unknown)!r}")
    paths = {f: folder / f"{stem}{WRITERS[f][0]}" for f in dict.fromkeys(formats)}
    there = [str(p) for p in paths.values() if p.exists()]
    if there and not overwrite:
        raise ValueError(f"{there} exist already. Replace them with --overwrite, or use --out.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"Cannot write to {str(folder)!r}: {error}") from error
    for name, path in paths.items():
        WRITERS[name][1](model, path, overwrite)
        say(f"{name:12} {path}")
    return paths


def dense_counterparts(model: keras.Model, formats: Sequence[str], folder: Path) -> dict[str, Path]:
    """The same formats, without use of zeros, of the same network with no weight pruned.

    Its weights are new random ones: size and speed are all that is asked of it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dense = keras.models.clone_model(model)
    plain = folder / "dense.keras"
    export.keras(dense, plain)
    found = {"keras": plain, "compact": plain}
    if "saved_model" in formats:
        found["saved_model"] = folder / "dense_saved_model"
        dense.export(str(found["saved_model"]), verbose=False)
    if "litert" in formats:
        found["litert"] = export.litert(dense, folder / "dense.tflite", sparse=False)
    return {name: path for name, path in found.items() if name in formats}
