"""`kl.export.measure`: what an exported model weighs, and how fast it runs, beside dense."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from keras_lottery import versions
from keras_lottery.display import say
from keras_lottery.export import charts
from keras_lottery.export.artefacts import Inputs, Program, flops, program
from keras_lottery.export.comparing import (
    News,
    Subject,
    Thing,
    batch_of,
    difference,
    examples,
    in_turns,
    subjects,
)
from keras_lottery.export.targets import checked_target, exportable
from keras_lottery.files import write_atomic
from keras_lottery.settings import check_integer

# Calls before those that are timed; how often each artefact is loaded.
_UNTIMED, _LOADS = 3, 3


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles around it, in the unit of the field."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of some values.

        Example:

        >>> Spread.of([1.0, 2.0, 3.0]).median
        2.0
        """
        low, median, high = np.percentile(values, (25, 50, 75)).tolist()
        return cls(median, low, high)


@dataclass(frozen=True)
class Measurement:
    """One row of the table.

    Attributes:
        name: Of the artefact; its dense counterpart is `"<name>, dense"`.
        density: Non-zero over all prunable weights, in [0, 1]; `None` if not known.
        parameters: Weights of the network that is computed; `None` if not known.
        flops: Of one example, zeros counted too; `None` if not known.
        bytes, gzipped: On disk, and after gzip; `None` for a model in memory.
        load_seconds: Median time to load it; `None` for a model in memory.
        latency: Dict of batch size to the `Spread` of milliseconds a call.
        difference: Largest difference of an output from the reference's, relative to the
            reference's largest output; `inf` where one of them is not finite. `None` for
            dense counterparts, and without a reference.
        is_dense: Whether it is a dense counterpart.
    """

    name: str
    density: float | None
    parameters: int | None
    flops: int | None
    bytes: int | None
    gzipped: int | None
    load_seconds: float | None
    latency: dict[int, Spread]
    difference: float | None
    is_dense: bool = False


@dataclass(frozen=True)
class Measurements:
    """The rows, and where they were measured.

    Attributes:
        rows: List of `Measurement`.
        about: Versions, device, cores, repeats.
    """

    rows: list[Measurement]
    about: dict[str, Any]

    def json(self) -> str:
        """Everything as JSON text; an infinite difference, which JSON has not, is `"inf"`."""
        rows = [asdict(r) for r in self.rows]
        for row in rows:
            if row["difference"] == np.inf:
                row["difference"] = "inf"
        return json.dumps({"about": self.about, "rows": rows}, indent=2, allow_nan=False)

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Writes the JSON to a file.

        Raises:
            ValueError: If the path does not end in `.json`, cannot be written, or is there
                already and shall not be overwritten.
        """
        write_atomic(checked_target(path, ".json", overwrite), self.json().encode() + b"\n")

    def table(self) -> Table:
        """A table for `rich`."""
        return charts.table(self.rows)

    def plot(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Draws bytes and latencies as bars into a PNG; needs matplotlib.

        Raises:
            ValueError: If the path does not end in `.png`, cannot be written, or is there
                already and shall not be overwritten.
            ImportError: If matplotlib is not installed.
        """
        write_atomic(checked_target(path, ".png", overwrite), charts.bars(self.rows))


def measure(
    artefacts: Thing | Mapping[str, Thing],
    reference: keras.Model | None = None,
    dense: Mapping[str, Thing] | None = None,
    x: Inputs | None = None,
    batch_sizes: Sequence[int] = (1, 32),
    repeats: int = 30,
    verbose: int = 1,
) -> Measurements:
    """Measures exported models: size, load time, latency, and whether they still agree.

    All artefacts take turns in one process, so that they meet the same noise. No speed is
    promised by a format; only what the table shows is so.

    Args:
        artefacts: A Keras model, or the path of a `.keras` file, a SavedModel or a `.tflite`
            file; or a dict of names to several.
        reference: The Keras model whose outputs are the right ones and whose density and
            parameters those of a SavedModel or a LiteRT file are. Default: none.
        dense: Dict of the same names to dense counterparts, measured beside; names may be
            missing. Default: none.
        x: Dict of input name to array, examples first; cast to what each artefact takes.
            Default: random ones, 0 or 1 for integers.
        batch_sizes: Integers, at least 1.
        repeats: Timed calls of each artefact and batch size, at least 1; some untimed ones
            go before.
        verbose: 0 for silence, 1 to print the table.

    Returns:
        `Measurements`: `.rows`, `.json()`, `.save(path)`, `.plot(path)`.

    Raises:
        ValueError: If a path holds nothing that can be measured, an artefact is of another
            model than the reference, or an argument is out of range; before anything is
            measured.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> measure(model, repeats=2, verbose=0).rows[0].parameters
    10
    """
    sizes = _checked_sizes(batch_sizes)
    check_integer("repeats", repeats, least=1)
    plain = None if reference is None else exportable(reference)
    right = None if plain is None else program(plain)
    found = subjects(artefacts, {} if dense is None else dense, plain)
    console = Console(quiet=not verbose)
    tell = News(console)
    for subject in found:
        subject.load()
        tell(f"loaded {subject.name}")
    rows = _measured(found, right, x, sizes, int(repeats), tell)
    about = _about(int(repeats))
    charts.show(rows, console)
    say(console, f"median (quartiles) of {repeats} calls in turns; {_line(about)}")
    return Measurements(rows, about)


def _checked_sizes(batch_sizes: Sequence[int]) -> list[int]:
    sizes = list(batch_sizes) if np.iterable(batch_sizes) else []
    if not sizes:
        raise ValueError(f"`batch_sizes` must be a list of integers. Received: {batch_sizes!r}")
    for size in sizes:
        check_integer("batch_sizes", size, least=1)
    return [int(size) for size in sizes]


def _measured(
    measured: list[Subject],
    right: Program | None,
    x: Inputs | None,
    batch_sizes: Sequence[int],
    repeats: int,
    tell: Callable[[str], None],
) -> list[Measurement]:
    shared = examples(x, measured[0].program, max(batch_sizes))
    inputs = {n: {s.name: s.fitted(batch_of(shared, n)) for s in measured} for n in batch_sizes}
    differences, operations = _differences(measured, right, shared), _flops(measured)
    loaders = {s.name: s.load for s in measured if s.artefact}
    loads = in_turns(loaders, _LOADS, tell=tell, what="loading: ")
    latency: dict[str, dict[int, Spread]] = {s.name: {} for s in measured}
    for n, batch in inputs.items():
        calls = {s.name: partial(s.seconds, batch[s.name]) for s in measured}
        timed = in_turns(calls, repeats, min(_UNTIMED, repeats), tell, f"batch {n}: ")
        for name, seconds in timed.items():
            latency[name][n] = Spread.of([1000 * t for t in seconds])
    rows = []
    for s in measured:
        count, name = operations.get(id(s.model)), s.name
        rows.append(_row(s, count, loads.get(name), latency[name], differences[name]))
        tell(f"weighed {name}")
    return rows


def _differences(
    measured: Sequence[Subject], right: Program | None, x: Inputs
) -> dict[str, float | None]:
    found: dict[str, float | None] = {s.name: None for s in measured}
    if right is None:
        return found
    try:
        expected = right.call(right.fitted(x))
    except ValueError as error:
        raise ValueError(f"The reference is of another model: {error}") from error
    for s in measured:
        if not s.is_dense:
            try:
                found[s.name] = difference(s.program.call(s.fitted(x)), expected)
            except ValueError as error:
                raise ValueError(f"{s.name!r} is not of the reference's model: {error}") from error
    return found


def _flops(measured: Sequence[Subject]) -> dict[int, int | None]:
    """Model id to operations; each model is counted once."""
    models = {id(s.model): s.model for s in measured if getattr(s.model, "inputs", None)}
    return {i: flops(model) for i, model in models.items() if model is not None}


def _row(
    s: Subject,
    operations: int | None,
    loads: Sequence[float] | None,
    latency: dict[int, Spread],
    difference: float | None,
) -> Measurement:
    return Measurement(
        s.name,
        s.density,
        s.model.count_params() if s.model is not None else None,
        operations,
        s.artefact.bytes if s.artefact else None,
        s.artefact.gzipped if s.artefact else None,
        float(np.median(loads)) if loads else None,
        latency,
        difference,
        s.is_dense,
    )


def _about(repeats: int) -> dict[str, Any]:
    devices = ", ".join(d.device_type for d in tf.config.list_logical_devices())
    return {
        "versions": versions.versions(),
        "device": devices,
        "cores": os.cpu_count(),
        "repeats": repeats,
    }


def _line(about: Mapping[str, Any]) -> str:
    found = ", ".join(f"{k} {v}" for k, v in about["versions"].items())
    return f"{found}, {about['device']}, {about['cores']} cores"
