"""Many weights as one variable of bytes, which TensorFlow unpacks when it has loaded it.

Few variables and few operations: each costs a SavedModel bytes, and time when it is loaded.
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

# TensorFlow takes a part of a tensor without a copy where it is whole rows of this many bytes.
_ROW = 64
# A weight that is not, and of more bytes than this, lies in a slab of its own.
_COPIED = 1 << 14
# A slab has up to this many elements, so that it takes little memory to unpack.
_SLAB = 1 << 22
_CHANGED = (
    "The weights in this SavedModel's folder of variables are not those that were exported "
    "with it: they were changed, or belong to another SavedModel. Export the model again."
)


@dataclass(frozen=True)
class Slab:
    """Weights of one dtype in one variable, one after another, each from a new row on.

    Attributes:
        weights: The variables of the model.
        own: The variable of the SavedModel: flat, and empty until it is unpacked.
        coded: What it is unpacked from.
    """

    weights: tuple[keras.Variable, ...]
    own: tf.Variable
    coded: Coded

    def read(self) -> list[tuple[keras.Variable, Any]]:
        """Each variable of the model and its value, in operations that copy next to nothing."""
        flat = tf.convert_to_tensor(self.own)
        parts = [flat]
        if len(self.weights) > 1:
            row = _ROW // self.own.dtype.size
            rows = [-(-_size(weight) // row) for weight in self.weights]
            parts = list(tf.split(tf.reshape(flat, [-1, row]), rows))
        return [(w, _shaped(part, w)) for w, part in zip(self.weights, parts, strict=True)]


@dataclass(frozen=True)
class Held:
    """The variables of the SavedModel that stand for those of the model.

    Attributes:
        plain: Pairs of a variable of the model and its own in the SavedModel.
        slabs: What holds the others.
    """

    plain: list[tuple[keras.Variable, tf.Variable]]
    slabs: list[Slab]

    def read(self) -> list[tuple[keras.Variable, Any]]:
        """Each variable of the model and its value."""
        plain = [(variable, tf.convert_to_tensor(own)) for variable, own in self.plain]
        return plain + [pair for slab in self.slabs for pair in slab.read()]


class Unpacker(tf.saved_model.experimental.TrackableResource):
    """Fills slabs from the bytes that hold them.

    TensorFlow calls `_initialize` when it has restored the variables of a SavedModel.

    Args:
        slabs: With empty variables.
        name: Of the variable of bytes.
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
        with tf.control_dependencies([tf.raw_ops.Assert(condition=same, data=[_CHANGED])]):
            parts = iter(tf.split(packed, np.array(self._lengths, np.int64), axis=1))
        for slab in self._slabs:
            codes, raw = next(parts), next(parts)
            stored = tf.as_dtype(slab.coded.values.dtype)
            values = tf.bitcast(tf.reshape(raw, [-1, stored.size]), stored)
            flat = tf.cast(decode(slab.coded, codes, values), slab.own.dtype)
            slab.own.assign(flat, read_value=False)


def slabs(weights: Sequence[Weight], name: str) -> list[Slab]:
    """Puts weights into slabs.

    Args:
        weights: Variables of a model and their values, in the dtype to store them in.
        name: Of the slabs' variables.
    """
    found = []
    for group in _groups(weights):
        variables = tuple(variable for variable, _ in group)
        own = tf.Variable(
            tf.zeros([0], variables[0].dtype), shape=[None], trainable=False, name=name
        )
        arrays = [array.reshape(-1) for _, array in group]
        if len(group) > 1:
            row = _ROW // own.dtype.size
            arrays = [np.pad(array, (0, -array.size % row)) for array in arrays]
        found.append(Slab(variables, own, encode(np.concatenate(arrays))))
    return found


def _groups(weights: Sequence[Weight]) -> Iterator[list[Weight]]:
    """The weights that share a slab: of one dtype, of `_SLAB` elements at most together."""
    open_: dict[Any, list[Weight]] = {}
    for variable, array in weights:
        nbytes = _size(variable) * tf.as_dtype(variable.dtype).size
        if nbytes % _ROW and nbytes > _COPIED:
            yield [(variable, array)]
            continue
        key = array.dtype, variable.dtype
        group = open_.setdefault(key, [])
        if group and sum(_size(v) for v, _ in group) + array.size > _SLAB:
            yield open_.pop(key)
            group = open_.setdefault(key, [])
        group.append((variable, array))
    yield from open_.values()


def _size(variable: keras.Variable) -> int:
    return int(np.prod(variable.shape, dtype=np.int64))


def _shaped(part: Any, weight: keras.Variable) -> Any:
    """The weight from whole rows."""
    size = _size(weight)
    if part.shape.num_elements() not in (None, size):
        part = tf.slice(tf.reshape(part, [-1]), [0], [size])
    return part if part.shape == weight.shape else tf.reshape(part, weight.shape)
