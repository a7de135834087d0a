"""Many coded weights as one variable of bytes, which TensorFlow unpacks when it loads them.

One variable and one initializer for all weights: each further one of either costs a
SavedModel bytes, and milliseconds when it is loaded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from keras_lottery.export import coding
from keras_lottery.export.coding import Codes
from keras_lottery.masks import Array

# Weights are decoded together up to this number of elements: few operations, little memory.
_BATCH = 1 << 22
_CHANGED = (
    "The weights in this SavedModel's folder of variables are not those that were exported "
    "with it: they were changed, or belong to another SavedModel. Export the model again."
)


@dataclass(frozen=True)
class Sparse:
    """A weight to be packed.

    Attributes:
        array: Its value, in the dtype in which it is stored.
        coding: One of `coding.CODINGS`.
        variable: Flat, empty and of unknown size: what the weight is unpacked into.
    """

    array: Array
    coding: str
    variable: tf.Variable


@dataclass(frozen=True)
class Batch:
    """How some weights of one coding and dtype lie in the packed bytes, one after another."""

    coding: str
    stored: tf.DType
    dtype: tf.DType
    sizes: tuple[int, ...]
    bytes: tuple[int, int]


class Unpacker(tf.saved_model.experimental.TrackableResource):
    """Fills the variables of the weights from `packed`, and empties that.

    TensorFlow calls `_initialize` when it has restored the variables of a SavedModel. An
    empty `packed` means that the variables hold the weights already: so it is when a loaded
    model was saved again.

    Args:
        weights: The weights, with empty variables.
        name: Of the variable `packed`.
    """

    def __init__(self, weights: Sequence[Sparse], name: str):
        super().__init__()
        batches = list(_batches(weights))
        packed, self._batches = _pack(batches)
        self._fingerprint = tf.fingerprint(packed[np.newaxis]).numpy()
        self._variables = [weight.variable for batch in batches for weight in batch]
        self.packed = tf.Variable(packed, shape=[None], trainable=False, name=name)

    def _create_resource(self) -> Any:
        return tf.constant(0)

    def _initialize(self) -> None:
        packed = tf.convert_to_tensor(self.packed)
        found = tf.fingerprint(tf.expand_dims(packed, 0))
        same = tf.reduce_all(found == self._fingerprint)
        with tf.control_dependencies([tf.raw_ops.Assert(condition=same, data=[_CHANGED])]):
            sizes = np.array([batch.bytes for batch in self._batches], np.int64).reshape(-1)
            parts = iter(tf.split(packed, sizes))
        weights = [weight for batch in self._batches for weight in _decoded(batch, parts)]
        for variable, weight in zip(self._variables, weights, strict=True):
            variable.assign(weight, read_value=False)


def _batches(weights: Sequence[Sparse]) -> Iterator[list[Sparse]]:
    """The weights in groups of one coding and dtype, of `_BATCH` elements at most."""
    groups: dict[Any, list[Sparse]] = {}
    for weight in weights:
        key = weight.coding, weight.array.dtype, weight.variable.dtype
        group = groups.setdefault(key, [])
        if group and sum(w.array.size for w in group) + weight.array.size > _BATCH:
            yield groups.pop(key)
            group = groups.setdefault(key, [])
        group.append(weight)
    yield from groups.values()


def _pack(batches: Sequence[Sequence[Sparse]]) -> tuple[Codes, list[Batch]]:
    """The bytes of all batches, and what lies where."""
    parts, plan = [np.zeros(0, np.uint8)], []
    for weights in batches:
        first = weights[0]
        flat = np.concatenate([weight.array.reshape(-1) for weight in weights])
        codes, values = coding.encode(flat, first.coding)
        parts += [codes, values.view(np.uint8)]
        plan.append(
            Batch(
                first.coding,
                tf.as_dtype(values.dtype),
                first.variable.dtype,
                tuple(weight.array.size for weight in weights),
                (codes.size, values.nbytes),
            )
        )
    return np.concatenate(parts), plan


def _decoded(batch: Batch, parts: Iterator[Any]) -> list[Any]:
    codes, raw = next(parts), next(parts)
    values = tf.bitcast(tf.reshape(raw, [-1, batch.stored.size]), batch.stored)
    flat = coding.decode(codes, values, batch.coding, sum(batch.sizes))
    return list(tf.split(tf.cast(flat, batch.dtype), np.array(batch.sizes, np.int64)))
