"""Early-bird tickets: the masks that pruning would give, epoch by epoch, until they settle."""

import math
import numbers
from collections import deque
from typing import Any

import keras
import numpy as np

from keras_lottery import criteria, enforcement, masks, scopes, weights
from keras_lottery.analysis.pairing import masks_of
from keras_lottery.masks import Array, Masks, Path
from keras_lottery.schedules import keep_density
from keras_lottery.search import check_finite
from keras_lottery.settings import check_integer
from keras_lottery.tickets import Ticket


def mask_distance(a: Masks | Ticket, b: Masks | Ticket) -> float:
    """Fraction of the masked weights at which two masks differ.

    Args:
        a: Dict of path to bool array, or a ticket.
        b: Masks of the same paths and shapes, or a ticket with such.

    Returns:
        Float in [0, 1].

    Raises:
        ValueError: If paths or shapes differ, there is no mask, or one is not of bools.

    Source: You et al., 1909.11957, section 3.

    Example:

    >>> mask_distance({"w": np.array([True, True, False, False])}, {"w": np.full(4, True)})
    0.5
    """
    first, second = masks_of(a, "a"), masks_of(b, "b")
    shapes = [{p: m.shape for p, m in given.items()} for given in (first, second)]
    size = sum(m.size for m in first.values())
    if shapes[0] != shapes[1] or not size:
        raise ValueError(
            f"Expected two masks of the same paths and shapes. Received: {shapes[0]} and "
            f"{shapes[1]}"
        )
    return sum(int(np.count_nonzero(first[p] != second[p])) for p in first) / size


class EarlyBird(keras.callbacks.Callback):
    """Tells in which epoch the mask that pruning would give has settled.

    At each epoch's end it draws the masks that `kl.prune` to `density` would give, and
    compares them with those of the epochs before. The model is not changed. `fit` begins
    anew: what an earlier `fit` found is forgotten. The logs get `mask_distance`; put this
    callback before CSVLogger and its like in the list.

    The paper prunes channels by the scales of BatchNormalization, over all layers:
    `filters=lambda path, v: path.endswith("gamma")` does that, and `scope="channels"` the same
    by the weights of each channel.

    Args:
        density: Float in (0, 1], the fraction of weights that would stay.
        criterion: A name in `kl.criteria` or a callable `State -> scores`, which needs no
            data. Its initial weights are those at the beginning of `fit`.
        scope: `"global"`, `"layerwise"`, `"erk"`, `"nm"`, `"block"`, `"channels"` or a
            `kl.scopes` object.
        filters: Which weights would be pruned, as in `LotteryCallback`.
        memory: Integer, at least 2: how many masks are compared, the newest included.
        threshold: Float in (0, 1]: settled is what differs by less from each.

    Attributes:
        distances: List with one float an epoch: the largest distance of its masks to the
            older ones in memory; NaN in the first epoch, which has none.
        epoch: The first epoch (from 0, as `fit` counts them) with a full memory and all
            distances below `threshold`; `None` until then.
        masks: The masks of that epoch: dict of path to bool array; `None` until then.

    Raises:
        ValueError: At construction, or before the first step, for anything that cannot work;
            `kl.NotFiniteError` at the end of an epoch that leaves NaN or Inf in the weights.

    Source: You et al., Drawing Early-Bird Tickets, 1909.11957.

    Example:

    >>> x, y = np.random.rand(32, 4), np.random.rand(32, 1)
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(1e-6), "mse")
    >>> bird = EarlyBird(density=0.5, memory=3)
    >>> history = model.fit(x, y, epochs=4, verbose=0, callbacks=[bird])
    >>> bird.epoch, history.history["mask_distance"][1:]
    (2, [0.0, 0.0, 0.0])
    """

    def __init__(
        self,
        density: float,
        criterion: str | criteria.Criterion = "magnitude",
        scope: str | scopes.Scope = "global",
        filters: weights.Filters | None = None,
        memory: int = 5,
        threshold: float = 0.1,
    ):
        super().__init__()
        for name, value in (("density", density), ("threshold", threshold)):
            if not isinstance(value, numbers.Real) or not 0 < value <= 1:
                raise ValueError(f"`{name}` must lie in (0, 1]. Received: {value!r}")
        check_integer("memory", memory, least=2)
        self.density, self.threshold, self.memory = density, threshold, int(memory)
        self.filters = filters
        self._score = criteria.resolve(criterion)
        self._choose = scopes.resolve(scope)
        self._forget()

    def _forget(self) -> None:
        self.distances: list[float] = []
        self.epoch: int | None = None
        self.masks: Masks | None = None
        self._recent: deque[Masks] = deque(maxlen=self.memory - 1)
        self._initial: dict[Path, Array] = {}

    def set_model(self, model: Any) -> None:
        """Called by `fit`: the first to meet a model of the wrong Keras."""
        weights.check_keras_3(model)
        super().set_model(model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._forget()
        if self.model.built:
            self._initial = self._weights()
            self._draw(self._initial)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        drawn = self._draw(self._weights())
        apart = [mask_distance(drawn, older) for older in self._recent]
        self.distances.append(max(apart, default=math.nan))
        if logs is not None:
            logs["mask_distance"] = self.distances[-1]
        full = len(apart) == self.memory - 1
        if self.epoch is None and full and self.distances[-1] < self.threshold:
            self.epoch, self.masks = epoch, drawn
        self._recent.append(drawn)

    def _weights(self) -> dict[Path, Array]:
        return weights.read(weights.prunable(self.model, self.filters))

    def _draw(self, values: dict[Path, Array]) -> Masks:
        """The masks that pruning would give now; those that are enforced are deepened."""
        check_finite(values, "weights")
        carried = enforcement.enforced_masks(self.model) or {}
        full = masks.full({p: v.shape for p, v in values.items()})
        alive = {p: carried.get(p, m) for p, m in full.items()}
        state = criteria.State(values, self._initial or values, alive, self.model)
        return dict(self._choose(self._score(state), alive, keep_density(self.density)))
