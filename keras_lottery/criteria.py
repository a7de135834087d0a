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
        return np.asarray(self._score(_float(final), _float(init), self._state.masks[path]))

    def __iter__(self) -> Iterator[Path]:
        return iter(self._state.weights)

    def __len__(self) -> int:
        return len(self._state.weights)


def _register(name: str, score: Callable[..., Any], doc: str) -> Criterion:
    """A named criterion from a function `(final, init, mask) -> score` of one weight's arrays."""

    def criterion(state: State) -> Scores:
        return _WhenAsked(state, score)

    criterion.__name__ = criterion.__qualname__ = name
    criterion.__doc__ = doc + " Source: 1905.01067."
    NAMED[name] = criterion
    return criterion


def _register_with_signs(name: str, score: Callable[..., Any], doc: str) -> Criterion:
    """The criterion, and its two variants that let changed or kept signs go first.

    Those weights score 0, as in the paper, or lowest of all if scores can be negative.
    """
    signed = name == "magnitude_increase"

    def where(keeps: Callable[..., Any]) -> Callable[..., Any]:
        def only(final: Any, init: Any, mask: Any) -> Any:
            kept = score(final, init, mask)
            lowest = np.finfo(kept.dtype).min if signed else 0
            return np.where(keeps(np.sign(final), np.sign(init)), kept, kept.dtype.type(lowest))

        return only

    _register(f"{name}_same_sign", where(np.equal), f"{doc} Changed signs go first.")
    _register(f"{name}_diff_sign", where(np.not_equal), f"{doc} Kept signs go first.")
    return _register(name, score, doc)


def _growth(final: Any, init: Any, mask: Any) -> Any:
    score = np.abs(final)
    score -= np.abs(init)
    return score


def _rank(weight: Any, mask: Any) -> Any:
    """The fraction of a layer's alive weights that are no larger than each weight."""
    alive = np.sort(np.abs(weight[mask]))
    return np.searchsorted(alive, np.abs(weight), side="right") / max(1, alive.size)


magnitude = _register_with_signs(
    "magnitude",
    lambda final, init, mask: np.abs(final),
    "`|final|`, the lottery ticket papers' own choice (1803.03635).",
)
large_init = _register_with_signs(
    "large_init", lambda final, init, mask: np.abs(init), "`|init|`: pruning at initialization."
)
magnitude_increase = _register_with_signs("magnitude_increase", _growth, "`|final| - |init|`.")
movement = _register_with_signs(
    "movement", lambda final, init, mask: np.abs(final - init), "`|final - init|`."
)
small_final = _register(
    "small_final", lambda final, init, mask: -np.abs(final), "`-|final|`, magnitude reversed."
)
small_init = _register(
    "small_init", lambda final, init, mask: -np.abs(init), "`-|init|`, large_init reversed."
)
large_init_large_final = _register(
    "large_init_large_final",
    lambda final, init, mask: np.minimum(_rank(final, mask), _rank(init, mask)),
    "Large at both ends: the lower of the two ranks among a layer's alive weights.",
)
small_init_small_final = _register(
    "small_init_small_final",
    lambda final, init, mask: -np.maximum(_rank(final, mask), _rank(init, mask)),
    "Small at both ends: minus the higher of the two ranks among a layer's alive weights.",
)


def random(state: State) -> Scores:
    """Uniform scores in [0, 1) from `state.seed`: random pruning, the control.

    Example:

    >>> weights = {"w": np.array([1.0, 2.0])}
    >>> state = State(weights, weights, {"w": np.ones(2, bool)}, seed=1)
    >>> bool((random(state)["w"] == random(state)["w"]).all())
    True
    """
    rng = np.random.default_rng(state.seed)
    return {p: rng.random(state.weights[p].shape, np.float32) for p in sorted(state.weights)}


def gradient(state: State) -> Scores:
    """`|dLoss/dw|` of the compiled loss on the batch `data`. Source: 1905.01067.

    Example:

    >>> gradient.needs_data
    True
    """
    return {p: np.abs(g) for p, g in _gradients(state).items()}


def snip(state: State) -> Scores:
    """`|w * dLoss/dw|` on the batch `data`, the connection sensitivity. Source: 1810.02340.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.set_weights([np.array([[1.0], [1.0]])])
    >>> model.compile(loss="mse")  # loss = (a + b)**2 = 9 at a = 1, b = 2: dLoss = 6, 12
    >>> weights = {model.layers[0].kernel.path: model.get_weights()[0]}
    >>> batch = (np.array([[1.0, 2.0]]), np.array([[0.0]]))
    >>> scores = snip(State(weights, weights, {}, model, batch))
    >>> [v.ravel().tolist() for v in scores.values()]
    [[6.0, 12.0]]
    """
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
