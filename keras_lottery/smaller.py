"""Training a smaller copy of a masked model, where that is the same training.

A unit that no alive weight reads has no gradient: without it the others train as with it,
to rounding. Its own weights would not move either, so they are kept as they are until
the trained weights are written back.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_lottery import enforcement, weights
from keras_lottery.compaction.planning import Plan, plan
from keras_lottery.compaction.rebuilding import Smaller, rebuild
from keras_lottery.compaction.rules import Part
from keras_lottery.compaction.tracing import is_graph
from keras_lottery.masks import Array, Masks, Path

_OPT = keras.optimizers
# Under these a weight moves only by its own gradient and its own slots.
_ELEMENTWISE = (
    _OPT.SGD, _OPT.RMSprop, _OPT.Adam, _OPT.AdamW, _OPT.Adamax, _OPT.Nadam, _OPT.Adadelta,
    _OPT.Lion,
)  # fmt: skip
_L = keras.layers
_RANDOM = (
    _L.Dropout, _L.SpatialDropout1D, _L.SpatialDropout2D, _L.SpatialDropout3D, _L.AlphaDropout,
    _L.GaussianDropout, _L.GaussianNoise,
)  # fmt: skip


class WholeModelError(ValueError):
    """Why a model has to train whole."""


class SmallerModel:
    """A copy of a masked model without the units that nothing alive reads, to train instead.

    Args:
        model: A Sequential or functional model, compiled or not.
        masks: Dict of path to bool array, enforced on it.

    Attributes:
        model: The smaller model, compiled alike, under its part of the masks.

    Raises:
        WholeModelError: If the training would not be the same.

    Example:

    >>> layers = [keras.Input((2,)), keras.layers.Dense(3), keras.layers.Dense(1)]
    >>> model = keras.Sequential(layers)
    >>> masks = {model.layers[1].kernel.path: np.array([[True], [False], [False]])}
    >>> SmallerModel(model, masks).model.layers[0].units
    1
    """

    def __init__(self, model: keras.Model, masks: Masks):
        _check_graph(model)
        paths = {id(v): p for p, v in weights.all_weights(model).items()}

        def alive(variable: keras.Variable) -> Any:
            mask = masks.get(paths.get(id(variable), ""))
            return np.ones(tuple(variable.shape), bool) if mask is None else mask

        self._whole = model
        found = plan(model, alive, constants=False)
        copy = rebuild(found)
        self.model = copy.model
        _check_same_training(model, found, copy)
        self._pairs = [(new, part) for new, part in copy.parts if part.old is not None]
        if getattr(model, "optimizer", None) is not None:
            _compile_alike(self.model, model)
        small = {id(v): p for p, v in weights.all_weights(self.model).items()}
        self._masks = {
            small[id(new)]: _taken(masks[paths[id(part.old)]], part)
            for new, part in self._pairs
            if paths.get(id(part.old)) in masks
        }
        enforcement.enforce(self.model, self._masks)
        self._optimizer: Any = None
        self.meet_optimizer()

    @property
    def share(self) -> float:
        """Its parameters over the whole model's, in (0, 1)."""
        return float(self.model.count_params() / self._whole.count_params())

    def meet_optimizer(self) -> None:
        """Gives its optimizer, if it is a new one, the state of the whole model's.

        Raises:
            WholeModelError: If the training would not be that of the whole model.
        """
        optimizer = getattr(self.model, "optimizer", None)
        if optimizer is None or optimizer is self._optimizer:
            return
        self._optimizer = optimizer
        _check_optimizer(optimizer)
        enforcement.enforce(self.model, self._masks)  # builds and follows it
        source = getattr(self._whole, "optimizer", None)
        if source is not None and source.built:
            for new, part in self._optimizer_pairs(source):
                old: Any = part.old
                left_out = np.ones(old.shape, bool).ravel()
                left_out[part.source[part.source >= 0]] = False
                if old.numpy().ravel()[left_out].any():
                    raise WholeModelError("the optimizer still moves the weights to be left out")
                new.assign(_taken(old.numpy(), part))

    def write_back(self) -> None:
        """Writes what was trained into the whole model and its optimizer."""
        pairs = list(self._pairs)
        source = getattr(self._whole, "optimizer", None)
        if source is not None and source.built and self._optimizer is not None:
            pairs += self._optimizer_pairs(source)
        for new, part in pairs:
            old: Any = part.old
            flat = old.numpy().ravel()
            there = part.source >= 0
            flat[part.source[there]] = new.numpy()[there]
            old.assign(flat.reshape(tuple(old.shape)))

    def _optimizer_pairs(self, source: Any) -> list[tuple[Any, Part]]:
        """Each variable of its optimizer, and where it lies in the whole model's."""
        whole, small = _slots(self._whole, source), _slots(self.model, self._optimizer)
        pairs, seen_old, seen_new = [], set(), set()
        for new, part in self._pairs:
            for kind, slot in small.get(id(new), {}).items():
                if kind in whole.get(id(part.old), {}):
                    old = whole[id(part.old)][kind]
                    pairs.append((slot, Part("", old, part.source)))
                    seen_old.add(id(old))
                    seen_new.add(id(slot))
        rest_old = [v for v in source.variables if id(v) not in seen_old]
        rest_new = [v for v in self._optimizer.variables if id(v) not in seen_new]
        if [tuple(v.shape) for v in rest_old] != [tuple(v.shape) for v in rest_new]:
            raise WholeModelError("its optimizer has other variables than the whole model's")
        for old, new in zip(rest_old, rest_new, strict=True):
            pairs.append((new, Part("", old, np.arange(old.numpy().size).reshape(old.shape))))
        return pairs


def _taken(array: Array, part: Part) -> Array:
    """What a part takes of an array shaped like its source; zeros, or False, for padding."""
    return np.where(part.source < 0, array.dtype.type(0), array.ravel()[part.source])


def _slots(model: keras.Model, optimizer: Any) -> Mapping[int, Mapping[str, Any]]:
    named = weights.name(model.trainable_variables)
    found: Mapping[Path, Any] = weights.slots(optimizer, named)
    return {id(named[p]): slots for p, slots in found.items()}


def _check_graph(model: keras.Model) -> None:
    if not is_graph(model):
        raise WholeModelError("its graph cannot be seen, as that of a subclassed model")
    if type(model).train_step is not keras.Model.train_step:
        raise WholeModelError("it has a training step of its own")


def _check_same_training(model: keras.Model, found: Plan, copy: Smaller) -> None:
    """Raises if anything that goes has a say in the training."""
    for layer in weights.sublayers(model):
        if getattr(layer, "activity_regularizer", None) is not None:
            raise WholeModelError(f"{layer.name!r} has an activity regularizer")
    for new, part in copy.parts:
        old = part.old
        if old is None or tuple(new.shape) == tuple(old.shape):
            continue
        if getattr(old, "regularizer", None) or getattr(old, "constraint", None):
            raise WholeModelError(f"{old.path!r} has a regularizer or a constraint")
    for layer, _ in copy.layers:
        site = found.context.sites.get(id(layer))
        if isinstance(layer, _RANDOM) and site:
            ids = site.output.columns[0]
            if len(found.solution.kept(ids)) < len(ids):
                raise WholeModelError(f"{layer.name!r} would draw other random numbers")


def _check_optimizer(optimizer: Any) -> None:
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if type(inner) not in _ELEMENTWISE:
        raise WholeModelError(f"{type(inner).__name__} does not treat each weight by itself")
    if inner.weight_decay or inner.use_ema:
        raise WholeModelError("weight decay and averages move weights without a gradient")


def _compile_alike(small: keras.Model, whole: keras.Model) -> None:
    copy: Callable[..., Any] = small.compile_from_config
    try:
        copy(whole.get_compile_config())
    except (TypeError, ValueError) as error:
        raise WholeModelError(f"its compile arguments cannot be copied: {error}") from error
