"""Programs side by side: on the same examples, in turns, their outputs compared."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
from rich.console import Console

from keras_lottery import weights
from keras_lottery.display import say
from keras_lottery.export.artefacts import (
    Artefact,
    Inputs,
    Program,
    keras_model,
    program,
    random_inputs,
)
from keras_lottery.export.targets import exportable
from keras_lottery.masks import Array

_SILENT_SECONDS = 10.0
Thing: TypeAlias = keras.Model | str | os.PathLike[str]


class News:
    """Tells how far a long work is, whenever there was silence for ten seconds.

    Args:
        console: Where to print.
    """

    def __init__(self, console: Console):
        self._console, self._spoke = console, time.monotonic()

    def __call__(self, text: str) -> None:
        if time.monotonic() - self._spoke > _SILENT_SECONDS:
            say(self._console, text)
            self._spoke = time.monotonic()


class Subject:
    """One artefact under measurement.

    Args:
        name: Of its row.
        thing: A Keras model, or a path.
        reference: The model whose numbers a SavedModel or a LiteRT file is given.
        is_dense: Whether it is a dense counterpart.

    Attributes:
        artefact: The file or folder; `None` for a Keras model.
        model: The model that is counted; `None` if not known.
        density: Of its weights, in [0, 1]; `None` if not known.
        program: What runs.
    """

    def __init__(
        self, name: str, thing: Thing, reference: keras.Model | None, is_dense: bool = False
    ):
        _check_thing(thing)
        self.name, self.is_dense = name, is_dense
        self.artefact = None if isinstance(thing, keras.Model) else Artefact.at(Path(thing))
        self._source, self.model = thing, reference
        self.density: float | None = None
        if self.artefact is None:
            self.model = exportable(thing)
        elif self.artefact.kind == "keras":
            self.model = exportable(keras_model(self.artefact.path))
        if self.model is not None and not (is_dense and self.model is reference):
            self.density = _nonzero_share(self.model)
        self.program: Program

    def load(self) -> float:
        """Loads it anew; returns the seconds that took."""
        start = time.perf_counter()
        self.program = self.artefact.load() if self.artefact else program(self._source)
        return time.perf_counter() - start

    def fitted(self, x: Inputs) -> Inputs:
        """`x` as its program takes it."""
        try:
            return self.program.fitted(x)
        except ValueError as error:
            raise ValueError(f"{self.name!r}: {error}") from error

    def seconds(self, x: Inputs) -> float:
        """The seconds that one call takes."""
        start = time.perf_counter()
        self.program.call(x)
        return time.perf_counter() - start


def _nonzero_share(model: keras.Model) -> float | None:
    """`None` if nothing can be pruned."""
    try:
        arrays = weights.read(weights.prunable(model)).values()
    except ValueError:
        return None
    return float(sum(np.count_nonzero(a) for a in arrays) / sum(a.size for a in arrays))


def subjects(
    artefacts: Thing | Mapping[str, Thing],
    dense: Mapping[str, Thing],
    reference: keras.Model | None,
) -> list[Subject]:
    """Each artefact, its dense counterpart behind it.

    Raises:
        ValueError: If there is none, or something is no artefact, cannot be read, or is the
            dense counterpart of nothing.
    """
    things = dict(artefacts) if isinstance(artefacts, Mapping) else {_name(artefacts): artefacts}
    if not things:
        raise ValueError("Expected at least one artefact. Received: none")
    if not isinstance(dense, Mapping) or dense.keys() - things.keys():
        raise ValueError(
            f"`dense` must be a dict of some of the names {list(things)}. Received: {dense!r}"
        )
    found = []
    for name, thing in things.items():
        found.append(Subject(name, thing, reference))
        if name in dense:
            found.append(Subject(f"{name}, dense", dense[name], reference, is_dense=True))
    return found


def _name(thing: Thing) -> str:
    _check_thing(thing)
    return thing.name if isinstance(thing, keras.Model) else Path(thing).name


def _check_thing(thing: Any) -> None:
    """Raises `ValueError` unless it is a Keras model or a path."""
    if not isinstance(thing, (keras.Model, str, os.PathLike)):
        raise ValueError(f"Expected a Keras model or a path. Received: {thing!r} of {type(thing)}")


def examples(x: Any, like: Program, n: int) -> Inputs:
    """The examples that all artefacts get.

    Args:
        x: Dict of input name to array, examples first; `None` for random ones.
        like: What random ones are made for.
        n: How many random ones.

    Raises:
        ValueError: If `x` is something else, or its arrays hold no examples or not as many
            each.

    Example:

    >>> import tensorflow as tf
    >>> program = Program({"x": tf.TensorSpec((None, 3))}, lambda x: [])
    >>> examples({"x": [[1, 2, 3]]}, program, 5)["x"].shape
    (1, 3)
    """
    if x is None:
        return random_inputs(like.inputs, n)
    if not isinstance(x, Mapping) or not x:
        raise ValueError(
            f"`x` must be a dict of input name to array, of the inputs {list(like.inputs)}. "
            f"Received: {type(x)}"
        )
    arrays = {name: np.asarray(value) for name, value in x.items()}
    counts = {array.shape[:1] for array in arrays.values()}
    if len(counts) > 1 or counts & {(), (0,)}:
        shapes = {name: array.shape for name, array in arrays.items()}
        raise ValueError(
            "The arrays in `x` must hold as many examples each, and at least one. Received "
            f"arrays of shapes {shapes}"
        )
    return arrays


def batch_of(x: Inputs, n: int) -> Inputs:
    """The first `n` examples, from the start again if there are fewer.

    Example:

    >>> batch_of({"x": np.array([1, 2])}, 5)["x"].tolist()
    [1, 2, 1, 2, 1]
    """
    return {name: np.resize(array, (n, *array.shape[1:])) for name, array in x.items()}


def in_turns(
    functions: Mapping[str, Callable[[], float]],
    repeats: int,
    untimed: int = 0,
    tell: Callable[[str], None] = lambda text: None,
    what: str = "",
) -> dict[str, list[float]]:
    """What each function returns, all taking turns, another one first in each turn.

    Args:
        functions: Dict of name to function.
        repeats: How many returned values are kept of each.
        untimed: How many turns go before, their values dropped.
        tell: Is given a line on how far it is after each call.
        what: How that line begins.

    Example:

    >>> in_turns({"a": lambda: 1.0, "b": lambda: 2.0}, repeats=2)
    {'a': [1.0, 1.0], 'b': [2.0, 2.0]}
    """
    found: dict[str, list[float]] = {name: [] for name in functions}
    names = list(functions)
    for turn in range(untimed + repeats):
        first = turn % max(1, len(names))
        for name in names[first:] + names[:first]:
            value = functions[name]()
            if turn >= untimed:
                found[name].append(value)
            tell(f"{what}turn {turn + 1} of {untimed + repeats}")
    return found


def difference(outputs: Sequence[Array], right: Sequence[Array]) -> float:
    """The largest difference of an output from the right one, as parts of its largest value.

    Returns:
        At least 0; `inf` where one of two values is not finite and the other is another one.

    Raises:
        ValueError: If number or shapes differ.

    Example:

    >>> difference([np.array([1.0, 5.0])], [np.array([1.0, 4.0])])
    0.25
    """
    shapes, expected = [o.shape for o in outputs], [r.shape for r in right]
    if shapes != expected:
        raise ValueError(f"Expected outputs of shapes {expected}. Received: {shapes}")
    return max((_apart(o, r) for o, r in zip(outputs, right, strict=True)), default=0.0)


def _apart(output: Array, right: Array) -> float:
    a, b = output.astype(np.float64), right.astype(np.float64)
    with np.errstate(invalid="ignore"):
        apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    scale = np.abs(b[np.isfinite(b)]).max(initial=0.0)
    return float(np.nan_to_num(apart, nan=np.inf, posinf=np.inf).max(initial=0.0) / (scale or 1.0))
