"""Many weights as few bytes in one variable, which TensorFlow unpacks when it has loaded it.

Few variables and operations: each costs a SavedModel bytes, and time when it is loaded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lottery.export.coding import Coded, decode, encode
from keras_lottery.masks import Array

Weight = tuple[keras.Variable, Array]

# TensorFlow takes whole rows of this many bytes out of a tensor without copying them.
_ROW = 64
# A weight that is not whole rows is copied in each call, or has a slab of its own if larger.
_COPIED = 1 << 14
# The elements of a slab: what unpacking takes beside the weights grows with them.
_SLAB = 1 << 22
_CHANGED = (
    "The weights in this SavedModel's folder of variables are not those that were exported "
    "with it: they were changed, or belong to another SavedModel. Export the model again."
)


@dataclass(frozen=True)
class Slab:
    """Weights of one dtype, one after another in a flat variable whose value is not saved.

    Attributes:
        weights: The variables of the model. Those that are not whole rows come last.
        own: The variable of the SavedModel.
        coded: What it is unpacked from.
    """

    weights: tuple[keras.Variable, ...]
    own: tf.Variable
    coded: Coded

    def read(self) -> list[tuple[keras.Variable, Any]]:
        """Each variable of the model, and its value as a part of the slab."""
        flat = tf.convert_to_tensor(self.own)
        parts = [flat] if len(self.weights) == 1 else self._parts(flat)
        return [
            (weight, part if part.shape == weight.shape else tf.reshape(part, weight.shape))
            for weight, part in zip(self.weights, parts, strict=True)
        ]

    def fill(self, codes: Any, raw: Any) -> Any:
        """The operation that decodes the weights from two rows of bytes."""
        stored = tf.as_dtype(self.coded.values.dtype)
        values = tf.bitcast(tf.reshape(raw, [-1, stored.size]), stored)
        flat = tf.cast(decode(self.coded, codes, values), self.own.dtype)
        return self.own.assign(flat, read_value=False)

    def _parts(self, flat: Any) -> list[Any]:
        row, sizes = _row(flat.dtype), [_size(weight) for weight in self.weights]
        rows = [size // row for size in sizes if size % row == 0]
        odd = sizes[len(rows) :]
        left = self.coded.size // row - sum(rows)
        parts = list(tf.split(tf.reshape(flat, [-1, row]), rows + [left] * bool(odd)))
        if odd:
            last = tf.reshape(parts.pop(), [-1])
            parts += tf.split(last, [*odd, left * row - sum(odd)])[: len(odd)]
        return parts


class Unpacker(tf.saved_model.experimental.TrackableResource):
    """Fills slabs from `packed`, the variable of the codes and values of all of them.

    TensorFlow calls `_initialize` when it has restored the variables of a SavedModel.

    Args:
        slabs: What to fill.
        name: Of the variable `packed`.
    """

    def __init__(self, slabs: Sequence[Slab], name: str):
        super().__init__()
        parts = [part for s in slabs for part in (s.coded.codes, s.coded.values.view(np.uint8))]
        self._slabs, self._lengths = slabs, [part.size for part in parts]
        self.packed = tf.Variable(np.concatenate(parts)[np.newaxis], trainable=False, name=name)
        self._fingerprint = tf.fingerprint(self.packed).numpy()

    def _create_resource(self) -> Any:
        return tf.constant(0)  # All that there is to hold is in variables.

    def _initialize(self) -> None:
        packed = tf.convert_to_tensor(self.packed)
        same = tf.reduce_all(tf.fingerprint(packed) == self._fingerprint)
        before = tf.raw_ops.Assert(condition=same, data=[_CHANGED])
        with tf.control_dependencies([before]):
            parts = iter(tf.split(packed, np.array(self._lengths, np.int64), axis=1))
        for slab in self._slabs:
            # One after another, so that what unpacking takes is taken once.
            with tf.control_dependencies([before]):
                before = slab.fill(next(parts), next(parts))

    # TensorFlow calls what is stored by this name for nothing, which takes milliseconds.
    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> Any:
        children = dict(super()._trackable_children(save_type, **kwargs))
        children.pop("_destroy_resource", None)
        return children


@dataclass(frozen=True)
class Held:
    """The variables of the SavedModel that stand for those of the model.

    Attributes:
        plain: Pairs of a variable of the model and its own in the SavedModel.
        slabs: What holds the others.
        unpacker: What fills the slabs; `None` if there are none.
    """

    plain: list[tuple[keras.Variable, tf.Variable]]
    slabs: list[Slab]
    unpacker: Unpacker | None

    def read(self) -> list[tuple[keras.Variable, Any]]:
        """Each variable of the model and its value."""
        if self.unpacker is not None:
            # For nothing but that an endpoint, saved again, brings along what fills the slabs.
            tf.convert_to_tensor(self.unpacker.packed)
        plain = [(variable, tf.convert_to_tensor(own)) for variable, own in self.plain]
        return plain + [pair for slab in self.slabs for pair in slab.read()]


def slabs(weights: Sequence[Weight], name: str) -> list[Slab]:
    """Puts weights into slabs.

    Args:
        weights: Variables of a model and their values, in the dtype to store them in.
        name: Of the slabs' variables.
    """
    found = []
    for group in _groups(weights):
        variables = tuple(variable for variable, _ in group)
        dtype = variables[0].dtype
        flat = np.concatenate([array.reshape(-1) for _, array in group])
        if len(group) > 1:
            flat = np.pad(flat, (0, -flat.size % _row(dtype)))
        own = tf.Variable(tf.zeros(flat.shape, dtype), trainable=False, name=name)
        found.append(Slab(variables, _without_value(own), encode(flat)))
    return found


def _without_value(variable: tf.Variable) -> tf.Variable:
    """Has TensorFlow save that there is this variable, but not its value.

    TensorFlow has no public way. By these two names it asks an object, and what stands for
    it in a graph, for the tensors to save.
    """
    export = variable._export_to_saved_model_graph

    def exported(object_map: Any, *args: Any, **kwargs: Any) -> Any:
        resources = export(object_map, *args, **kwargs)
        object_map[variable]._serialize_to_tensors = dict
        return resources

    variable._serialize_to_tensors = dict
    variable._export_to_saved_model_graph = exported
    return variable


def _groups(weights: Sequence[Weight]) -> Iterator[list[Weight]]:
    """The weights that share a slab: of one dtype, of `_SLAB` elements at most together."""
    groups: dict[Any, list[Weight]] = {}
    for variable, array in sorted(weights, key=lambda weight: _is_odd(weight[0])):
        if _is_odd(variable) and _size(variable) * tf.as_dtype(variable.dtype).size > _COPIED:
            yield [(variable, array)]
            continue
        key = array.dtype, variable.dtype
        group = groups.setdefault(key, [])
        if group and sum(_size(v) for v, _ in group) + array.size > _SLAB:
            yield groups.pop(key)
            group = groups.setdefault(key, [])
        group.append((variable, array))
    yield from groups.values()


def _row(dtype: Any) -> int:
    return int(_ROW // tf.as_dtype(dtype).size)


def _size(variable: keras.Variable) -> int:
    return int(np.prod(variable.shape, dtype=np.int64))


def _is_odd(variable: keras.Variable) -> bool:
    """Whether the variable is not whole rows."""
    return _size(variable) % _row(variable.dtype) != 0
