"""Criteria give every weight a score; higher stays.

A criterion is a callable `State -> dict of path to float array`. The named ones
follow Zhou et al. (1905.01067): "final" is the trained weight, "init" its value at
the rewind point. Any callable of that form works wherever a name does:

>>> smallest_go_last = lambda state: {p: -abs(w) for p, w in state.weights.items()}
>>> resolve(smallest_go_last) is smallest_go_last
True
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_lottery import weights as keras_weights
from keras_lottery.masks import Array, Masks, Path

Scores = Mapping[Path, NDArray[np.floating]]


@dataclass(frozen=True)
class State:
    """What a criterion may look at.

    Attributes:
        weights: Dict of path to the trained weight, a float array.
        initial: Dict of path to the weight at the rewind point.
        masks: Dict of path to bool array, True = alive.
        model: The Keras model, holding `weights`.
        data: A batch `(x, y)` for criteria that need one, or `None`.
        seed: Integer seed or sequence of them for criteria that draw.
    """

    weights: Mapping[Path, Array]
    initial: Mapping[Path, Array]
    masks: Masks
    model: Any = None
    data: tuple[Any, Any] | None = None
    seed: int | tuple[int, ...] = 0


Criterion = Callable[[State], Scores]
NAMED: dict[str, Criterion] = {}


def needs_data(criterion: Criterion) -> bool:
    """Whether the criterion asks for a batch, by its attribute `needs_data`."""
    return bool(getattr(criterion, "needs_data", False))


def resolve(criterion: str | Criterion, data: Any = None) -> Criterion:
    """The criterion of a name, or the callable itself.

    Raises:
        ValueError: If the name is unknown (the message lists the valid ones), or the
            criterion needs data and there is none.

    Example:

    >>> resolve("magnitude") is magnitude
    True
    """
    found = NAMED.get(criterion) if isinstance(criterion, str) else criterion
    if not callable(found):
        raise ValueError(
            f"`criterion` must be one of {sorted(NAMED)} or a callable `State -> scores`. "
            f"Received: {criterion!r}"
        )
    if needs_data(found) and data is None:
        raise ValueError(
            f"The criterion {criterion!r} scores weights on a batch, and no data was given. "
            "Pass `data=(x, y)`, or `x` and `y` to `prune`."
        )
    return found


def _float(array: Array) -> NDArray[np.floating]:
    """Half-precision weights are compared in float32."""
    return np.asarray(array, np.float64 if array.dtype == np.float64 else np.float32)


class _WhenAsked(Mapping[Path, NDArray[np.floating]]):
    """Scores computed path by path when asked for: at 25 million weights memory counts."""

    def __init__(self, state: State, score: Callable[..., Any]):
        self._state, self._score = state, score

    def __getitem__(self, path: Path) -> NDArray[np.floating]:
        final, init = self._state.weights[path], self._state.initial[path]
        return np.asarray(self._score(_float(final), _float(init)))

    def __iter__(self) -> Iterator[Path]:
        return iter(self._state.weights)

    def __len__(self) -> int:
        return len(self._state.weights)


def _register(name: str, score: Callable[..., Any], doc: str) -> Criterion:
    """A criterion from a function `(final, init) -> score` of one weight's arrays."""

    def criterion(state: State) -> Scores:
        return _WhenAsked(state, score)

    criterion.__name__ = criterion.__qualname__ = name
    criterion.__doc__ = doc + " Source: 1905.01067."
    NAMED[name] = criterion
    return criterion


def _growth(final: Any, init: Any) -> Any:
    score = np.abs(final)
    score -= np.abs(init)
    return score


def _both(final: Any, init: Any) -> Any:
    """Lower of the two ranks, so that the kept set is large in both."""
    ranks = [np.argsort(np.argsort(np.abs(a), axis=None, kind="stable")) for a in (final, init)]
    return np.minimum(*ranks).reshape(final.shape).astype(np.float64)


_BASE: dict[str, tuple[Callable[..., Any], str]] = {
    "magnitude": (lambda f, i: np.abs(f), "`|final|`, the papers' own choice (1803.03635)."),
    "large_init": (lambda f, i: np.abs(i), "`|init|`: pruning at initialization."),
    "magnitude_increase": (_growth, "`|final| - |init|`."),
    "movement": (lambda f, i: np.abs(f - i), "`|final - init|`."),
}
for _name, (_score, _doc) in _BASE.items():
    _register(_name, _score, _doc)
    _register(
        f"{_name}_same_sign",
        lambda f, i, score=_score: _only(score(f, i), np.sign(f) == np.sign(i)),
        _doc + " Weights whose sign changed go first.",
    )
    _register(
        f"{_name}_diff_sign",
        lambda f, i, score=_score: _only(score(f, i), np.sign(f) != np.sign(i)),
        _doc + " Weights whose sign stayed go first.",
    )
_register("small_final", lambda f, i: -np.abs(f), "`-|final|`, the reverse of magnitude.")
_register("small_init", lambda f, i: -np.abs(i), "`-|init|`, the reverse of large_init.")
_register("large_init_large_final", _both, "Large at both ends, by rank inside a layer.")
_register("small_init_small_final", lambda f, i: -_both_small(f, i), "Small at both ends, by rank.")
magnitude = NAMED["magnitude"]
large_init = NAMED["large_init"]
magnitude_increase = NAMED["magnitude_increase"]
movement = NAMED["movement"]


def _only(score: Any, where: Any) -> Any:
    """The score where the sign condition holds, else 0, as the paper's masks do.

    A score that can be negative is first shifted above 0, so that 0 stays the lowest.
    """
    lowest = min(float(score.min(initial=0.0)), 0.0)
    return np.where(where, score - lowest, 0.0)


def _both_small(final: Any, init: Any) -> Any:
    ranks = [np.argsort(np.argsort(np.abs(a), axis=None, kind="stable")) for a in (final, init)]
    return np.maximum(*ranks).reshape(final.shape).astype(np.float64)


def random(state: State) -> Scores:
    """Uniform scores from `state.seed`, the random-pruning control."""
    rng = np.random.default_rng(state.seed)
    return {p: rng.random(state.weights[p].shape, np.float32) for p in sorted(state.weights)}


def gradient(state: State) -> Scores:
    """`|dLoss/dw|` on the batch `data`. Source: 1905.01067."""
    return {p: np.abs(g) for p, g in _gradients(state).items()}


def snip(state: State) -> Scores:
    """`|w * dLoss/dw|` on the batch `data`, the connection sensitivity. Source: 1810.02340."""
    return {p: np.abs(g * _float(state.weights[p])) for p, g in _gradients(state).items()}


def _gradients(state: State) -> dict[Path, NDArray[np.floating]]:
    """The gradient of the compiled loss on the batch, at the masked weights."""
    import tensorflow as tf  # Keras has no gradient of its own across backends.

    if state.data is None or not getattr(state.model, "compiled", False):
        raise ValueError("This criterion needs a compiled model and a batch `data=(x, y)`.")
    x, y = state.data
    variables = keras_weights.all_weights(state.model)
    with tf.GradientTape() as tape:
        loss = state.model.compute_loss(x=x, y=y, y_pred=state.model(x, training=False))
    watched = [variables[p].value for p in state.weights]
    grads = tape.gradient(loss, watched, unconnected_gradients="zero")
    return {
        p: _float(keras.ops.convert_to_numpy(tf.convert_to_tensor(g)))
        for p, g in zip(state.weights, grads, strict=True)
    }


gradient.needs_data = snip.needs_data = True  # type: ignore[attr-defined]
NAMED |= {"random": random, "gradient": gradient, "snip": snip}
