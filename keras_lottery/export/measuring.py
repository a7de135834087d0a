"""`kl.export.measure`: what an exported model weighs, and how fast it runs, beside dense."""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from keras_lottery import versions, weights
from keras_lottery.display import say
from keras_lottery.export import charts
from keras_lottery.export.artefacts import (
    Artefact,
    Inputs,
    Program,
    flops,
    keras_model,
    program,
    random_inputs,
)
from keras_lottery.export.targets import checked_target, exportable
from keras_lottery.files import write_atomic
from keras_lottery.masks import Array
from keras_lottery.settings import check_integer

_SILENT_SECONDS = 10
Thing: TypeAlias = keras.Model | str | os.PathLike[str]


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
    subjects = _subjects(artefacts, dense or {}, reference)
    console = Console(quiet=not verbose)
    for subject in subjects:
        subject.load()
    rows = _measured(subjects, reference, x, sizes, int(repeats), _News(console))
    found = Measurements(rows, _about(int(repeats)))
    charts.show(found.rows, console)
    say(console, f"median (quartiles) of {repeats} calls in turns; {_line(found.about)}")
    return found


def _checked_sizes(batch_sizes: Sequence[int]) -> list[int]:
    sizes = list(batch_sizes) if np.iterable(batch_sizes) else []
    if not sizes:
        raise ValueError(f"`batch_sizes` must be a list of integers. Received: {batch_sizes!r}")
    for size in sizes:
        check_integer("batch_sizes", size, least=1)
    return [int(size) for size in sizes]


def _subjects(
    artefacts: Thing | Mapping[str, Thing],
    dense: Mapping[str, Thing],
    reference: keras.Model | None,
) -> list["_Subject"]:
    things = dict(artefacts) if isinstance(artefacts, Mapping) else {_name(artefacts): artefacts}
    if not things:
        raise ValueError("Expected at least one artefact. Received: none")
    unknown = [name for name in dense if name not in things]
    if unknown:
        raise ValueError(f"`dense` has {unknown}; the artefacts are {list(things)}")
    plain = None if reference is None else exportable(reference)
    subjects = []
    for name, thing in things.items():
        subjects.append(_Subject(name, thing, plain))
        if name in dense:
            subjects.append(_Subject(f"{name}, dense", dense[name], plain, is_dense=True))
    return subjects


def _name(thing: Thing) -> str:
    _check_thing(thing)
    return thing.name if isinstance(thing, keras.Model) else Path(thing).name


def _check_thing(thing: Any) -> None:
    if not isinstance(thing, (keras.Model, str, os.PathLike)):
        raise ValueError(f"Expected a Keras model or a path. Received: {thing!r} of {type(thing)}")


class _Subject:
    """One artefact under measurement."""

    def __init__(
        self, name: str, thing: Thing, reference: keras.Model | None, is_dense: bool = False
    ):
        _check_thing(thing)
        self.name, self.is_dense = name, is_dense
        self.artefact = None if isinstance(thing, keras.Model) else Artefact.at(thing)
        self._source, self.model = thing, reference
        self.density: float | None = None
        if isinstance(thing, keras.Model):
            self.model = exportable(thing)
        elif self.artefact is not None and self.artefact.kind == "keras":
            self.model = exportable(keras_model(self.artefact.path))
        if self.model is not None and not (is_dense and self.model is reference):
            self.density = _nonzero_share(self.model)
        self.program: Program

    def load(self) -> float:
        """Loads it anew; returns the seconds that took."""
        start = time.perf_counter()
        self.program = self.artefact.load() if self.artefact else program(self._source)
        return time.perf_counter() - start


class _News:
    """Tells how far it is, once there was silence for a while."""

    def __init__(self, console: Console):
        self._console, self._spoke = console, time.monotonic()

    def __call__(self, text: str) -> None:
        if time.monotonic() - self._spoke > _SILENT_SECONDS:
            say(self._console, f"  {text}")
            self._spoke = time.monotonic()


def _measured(
    subjects: list[_Subject],
    reference: keras.Model | None,
    x: Inputs | None,
    batch_sizes: Sequence[int],
    repeats: int,
    tell: Callable[[str], None],
) -> list[Measurement]:
    examples = _examples(x, subjects[0].program, max(batch_sizes))
    batches = {n: {k: np.resize(v, (n, *v.shape[1:])) for k, v in examples.items()}
               for n in batch_sizes}  # fmt: skip
    calls = {n: {s.name: _timed(s.program, batch) for s in subjects} for n, batch in batches.items()}
    differences = _differences(subjects, reference, examples)
    loaders = {s.name: s.load for s in subjects if s.artefact}
    loads = _in_turns(loaders, 3, 0, lambda i, of: tell(f"loading, turn {i} of {of}"))
    latency: dict[str, dict[int, Spread]] = {s.name: {} for s in subjects}
    for n in batch_sizes:
        pass
    return []


def _in_turns(functions: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """What each function returns, `repeats` times, taking turns in changing order."""
    found: dict[str, list[float]] = {name: [] for name in functions}
    names = list(functions)
    warm = min(3, repeats)
    for turn in range(repeats + warm):
        start = turn % max(1, len(names))
        for name in names[start:] + names[:start]:
            value = functions[name]()
            if turn >= warm:
                found[name].append(value)
    return found


def _outputs(loaded: Program, x: Inputs) -> list[Array]:
    return loaded.call(loaded.named(x))


def _timed(loaded: Program, batch: Inputs) -> Callable[[], float]:
    batch = loaded.named(batch)

    def call() -> float:
        start = time.perf_counter()
        loaded.call(batch)
        return time.perf_counter() - start

    return call


def _difference(outputs: Sequence[Array], right: Sequence[Array]) -> float:
    """The largest difference, relative to the largest right output."""
    largest = 0.0
    for output, expected in zip(outputs, right, strict=True):
        a, b = output.astype(np.float64), expected.astype(np.float64)
        scale = np.abs(b).max(initial=0.0)
        largest = max(largest, float(np.abs(a - b).max(initial=0.0) / (scale or 1.0)))
    return largest


def _row(
    s: _Subject,
    loads: Sequence[float] | None,
    latency: dict[int, Spread],
    difference: float | None,
) -> Measurement:
    return Measurement(
        s.name,
        s.density,
        s.model.count_params() if s.model is not None else None,
        flops(s.model) if s.model is not None and getattr(s.model, "inputs", None) else None,
        s.artefact.bytes if s.artefact else None,
        s.artefact.gzipped if s.artefact else None,
        float(np.median(loads)) if loads else None,
        latency,
        difference,
    )


def _nonzero_share(model: keras.Model) -> float:
    arrays = weights.read(weights.prunable(model)).values()
    return float(sum(np.count_nonzero(a) for a in arrays) / sum(a.size for a in arrays))


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


def _cells(row: Measurement) -> list[str]:
    def text(value: Any, form: str) -> str:
        return "-" if value is None else format(value, form)

    spreads = [f"{s.median:.2f} ({s.low:.2f}-{s.high:.2f})" for s in row.latency.values()]
    return [
        row.name,
        text(row.density, ".1%"),
        text(row.parameters, ","),
        text(None if row.flops is None else row.flops / 1e6, ".2f"),
        text(row.bytes, ","),
        text(row.gzipped, ","),
        text(None if row.load_seconds is None else 1000 * row.load_seconds, ".1f"),
        *spreads,
        text(row.difference, ".1e"),
    ]
