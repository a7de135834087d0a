"""Many weights of one model, measured one after the other."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_lottery.analysis.evaluating import Evaluation
from keras_lottery.analysis.values import Values
from keras_lottery.masks import Array, Path

Measured = dict[str, float]
OnPoint = Callable[[int, Measured], None]


class Computed(Mapping[Path, Array]):
    """Values that are computed when they are asked for, so that no copy of all is held.

    Args:
        paths: Paths of the values.
        compute: Callable `path -> array`.

    Example:

    >>> dict(Computed(["w"], lambda path: np.zeros(1)))
    {'w': array([0.])}
    """

    def __init__(self, paths: Sequence[Path], compute: Callable[[Path], Array]):
        self._paths = dict.fromkeys(paths)
        self._compute = compute

    def __getitem__(self, path: Path) -> Array:
        if path not in self._paths:
            raise KeyError(path)
        return self._compute(path)

    def __contains__(self, path: object) -> bool:
        return path in self._paths

    def __iter__(self) -> Iterator[Path]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def is_float(array: Array) -> bool:
    """Whether it can be interpolated: no integer, no bool."""
    return not (np.issubdtype(array.dtype, np.integer) or array.dtype == bool)


def wide(array: Array) -> NDArray[np.floating]:
    """Float values in float32 at least, for arithmetic with them."""
    return array.astype(np.promote_types(array.dtype, np.float32), copy=False)


def measure_all(
    evaluation: Evaluation,
    points: Iterable[Values],
    total: int,
    verbose: int = 0,
    on_point: OnPoint | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Measures one set of weights after the other, with no copy of the model but one.

    Args:
        evaluation: What is measured.
        points: The weights, `total` of them; may be computed while it goes on.
        total: Their number, for the progress bar.
        verbose: 0 (default) prints nothing, 1 a progress bar, 2 one line at the end.
        on_point: Called as `on_point(index, {part: value})` after each.

    Returns:
        Dict of part to float64 array `(total,)`.

    Example:

    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> evaluation = Evaluation(model, (np.array([[1.0]]), np.array([1])))
    >>> paths = [v.path for v in model.weights]
    >>> points = [dict(zip(paths, (np.full((1, 1), w), np.zeros(1)))) for w in (0.0, 1.0)]
    >>> measure_all(evaluation, points, total=2)["data"].tolist()
    [1.0, 0.0]
    """
    bar = keras.utils.Progbar(total, verbose=verbose, unit_name="point") if verbose else None
    found: list[Measured] = []
    with evaluation:
        for i, point in enumerate(points):
            found.append(evaluation(point))
            if bar is not None:
                bar.update(i + 1, finalize=i + 1 == total)
            if on_point is not None:
                on_point(i, found[-1])
    return {part: np.array([m[part] for m in found], np.float64) for part in evaluation.parts}


def given_or_new(
    model: keras.Model, evaluation: Evaluation | None, data: Any, make: Callable[[], Evaluation]
) -> Evaluation:
    """The evaluation that is passed, or else a new one on the data that are passed."""
    if (evaluation is None) == (data is None):
        raise ValueError(
            "Expected either `data` or an `evaluation`. Received: "
            + ("neither." if data is None else "both.")
        )
    if evaluation is not None and evaluation.model is not model:
        raise ValueError(
            f"Expected an `evaluation` of the model {model.name!r} itself. Received: one of "
            f"another model, {evaluation.model.name!r}."
        )
    return evaluation or make()
