"""From a run or a ticket file to exported files and their measured table."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from keras_lottery import export
from keras_lottery.compaction.tracing import is_graph
from keras_lottery.experiments import models
from keras_lottery.experiments.store import TICKET, Store, sparsest_within
from keras_lottery.export.artefacts import keras_model
from keras_lottery.export.targets import checked_target
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
        architecture: The model that the user's own run names; `None` for a ticket file.
    """

    ticket: Ticket
    stem: str
    folder: Path
    words: str
    architecture: str | None = None


def source(
    path: str | Path, round: str = "best", tolerance: float = 0.01, replicate: int = 0
) -> Source:
    """A ticket file, or a round of a run's folder with its trained weights.

    Args:
        path: A `.safetensors` file, or the folder of a run.
        round: Of a run: `"best"`, the sparsest round whose validation accuracy is at most
            `tolerance` below the dense one's; `"last"`; or an index.
        tolerance: In [0, 1].
        replicate: Of a run: which of its searches.

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
    settings = store.config()["settings"]
    tickets = [r for r in store.records() if r["kind"] == TICKET]
    records = {r["round"]: r for r in tickets if r["replicate"] == replicate}
    if not records:
        raise ValueError(
            f"No round of replicate {replicate} of {str(path)!r} has finished. The replicates "
            f"with finished rounds are: {sorted({r['replicate'] for r in tickets})}"
        )
    index = _round(round, list(records.values()), tolerance)
    trained = store.place(replicate, index).trained
    if not trained.exists():
        raise ValueError(
            f"There are no trained weights at {str(trained)!r}. Remove the folder of that round "
            "and give the command of the run again: it trains the round anew."
        )
    ticket = Ticket.load(trained)
    words = f"{path}, {_words(records, index)}"
    stem = f"round_{index:02d}" if replicate == 0 else f"replicate_{replicate}_round_{index:02d}"
    return Source(ticket, stem, path / "export", words, settings["model"])


def _round(text: str, records: list[dict[str, Any]], tolerance: float) -> int:
    if text == "best":
        return sparsest_within(records, tolerance)
    if text == "last":
        return max(int(r["round"]) for r in records)
    finished = sorted(r["round"] for r in records)
    if not text.isdecimal() or int(text) not in finished:
        raise ValueError(f"`round` must be best, last or one of {finished}. Received: {text!r}")
    return int(text)


def _words(records: dict[int, dict[str, Any]], index: int) -> str:
    dense, chosen = (records[i] for i in (min(records), index))
    accuracies = (
        f"{part} accuracy {_percent(chosen, key)} (dense {_percent(dense, key)})"
        for part, key in (("validation", "val_accuracy"), ("test", "test_accuracy"))
    )
    return f"round {index}: {chosen['density']:.2%} density, {', '.join(accuracies)}"


def _percent(record: dict[str, Any], key: str) -> str:
    value = record["end"].get(key)
    return "unknown" if value is None else f"{value:.2%}"


def build(ticket: Ticket, architecture: str | None = None) -> keras.Model:
    """The model of a ticket, its weights and masks applied.

    Args:
        ticket: With `metadata["model"]` as `keras-lottery find` writes it.
        architecture: Path of a `.keras` file of the model, or a name that `models.resolve`
            knows. Default: what the ticket names, if that is one of `models.NAMED`: a file
            from elsewhere does not choose which code is run.

    Raises:
        ValueError: If it is not known how to build the model, or the ticket is of another.
    """
    if architecture is not None and architecture.endswith(".keras"):
        model = keras_model(Path(architecture))
    else:
        name, shape, classes = _described(ticket)
        if architecture is None and name not in models.NAMED:
            raise ValueError(
                f"The ticket names code as its model, {name!r}, which is not run unless you say "
                f"so: --architecture={name}"
            )
        model = models.build(architecture or name, shape, classes)
    ticket.apply(model)
    return model


def _described(ticket: Ticket) -> tuple[str, tuple[int, ...], int]:
    """Name, input shape and classes; a file may pass nothing but sizes to what it names."""
    match ticket.metadata.get("model"):
        case {"name": str(name), "input_shape": [*shape], "classes": classes} if all(
            type(n) is int and n > 0 for n in (*shape, classes)
        ):
            return name, tuple(shape), classes
    raise ValueError(
        "The ticket does not say how its model is built. Save the model with "
        "`model.save('model.keras')` and name that file: --architecture=model.keras"
    )


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
    also: Sequence[Path] = (),
) -> dict[str, Path]:
    """Writes each format into a folder, made if need be.

    Args:
        model: The model.
        formats: Keys of `WRITERS`.
        folder: Where the files go.
        stem: How their names begin.
        overwrite: Whether files that are there may be replaced.
        say: Is given a line for each file.
        also: Files that the caller will write there.

    Returns:
        Dict of format to path.

    Raises:
        ValueError: Before anything is written, if a format is unknown or something is in
            the way; later, if the model cannot be written in a format.
    """
    unknown = [f for f in formats if f not in WRITERS]
    if unknown or not formats:
        raise ValueError(f"Formats are {', '.join(WRITERS)}. Received: {', '.join(unknown)!r}")
    paths = {f: folder / f"{stem}{WRITERS[f][0]}" for f in dict.fromkeys(formats)}
    _check_targets([*paths.values(), *also], paths.get("saved_model"), folder, overwrite)
    for name, path in paths.items():
        try:
            WRITERS[name][1](model, path, overwrite)
        except (ValueError, RuntimeError, OSError) as error:
            raise ValueError(f"{name}: {error}") from error
        say(f"{name:12} {path}")
    return paths


def _check_targets(
    targets: Sequence[Path], to_be_folder: Path | None, folder: Path, overwrite: bool
) -> None:
    """Makes the folder; raises unless all may be written there."""
    there = [str(p) for p in targets if os.path.lexists(p)]
    if there and not overwrite:
        have = "exists" if len(there) == 1 else "exist"
        raise ValueError(
            f"{', '.join(there)} {have} already. Replace with --overwrite, or choose another "
            "folder with --out."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"Cannot write to {str(folder)!r}: {error}") from error
    for target in targets:
        checked_target(target, None if target == to_be_folder else target.suffix, overwrite)


def check_measurable(model: keras.Model) -> None:
    """Raises `ValueError` unless `dense_counterparts` can copy the model."""
    if not is_graph(model):
        raise ValueError(
            f"--measure needs a Sequential or functional model; {model.name!r} is a subclassed "
            f"{type(model).__name__}. Export it without, and measure the files of this and of a "
            "dense model with `kl.export.measure`."
        )


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
