"""Data in the forms that Keras takes, as batches that can be gone through again and again."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from keras_lottery.settings import check_integer

Data: TypeAlias = tuple[Any, ...] | tf.data.Dataset | keras.utils.PyDataset
_FORMS = (
    "Expected a tuple `(x, y)` or `(x, y, sample_weight)` of arrays, a `tf.data.Dataset` of such "
    "batches or a `keras.utils.PyDataset`."
)


class Batches:
    """One part of the data: batches `(x, y, sample_weight or None)`, as often as it is asked.

    Args:
        data: See `Evaluation`.
        batch_size: Examples in a batch, where `data` are arrays.
        part: What the error messages call the part.

    Raises:
        ValueError: If there is no example, if lengths differ, if the data never end, or if a
            float is a NaN or an Inf (of a dataset: when it is gone through for the first time).
        TypeError: If the data are of another form, or can be gone through only once.

    Example:

    >>> [len(y) for _, y, _ in Batches(([[1.0], [2.0], [3.0]], [0, 1, 0]), 2, "data")]
    [2, 1]
    """

    def __init__(self, data: Data, batch_size: int, part: str):
        self._part = part
        self._finite = False
        if isinstance(data, tuple):
            self._source: Any = self._of_arrays(data, batch_size)
        elif isinstance(data, (tf.data.Dataset, keras.utils.PyDataset)):
            self._source = data
        else:
            self._refuse(data)
        self._check_ends()
        if next(iter(self), None) is None:
            raise ValueError(f"The data {part!r} are empty: they need one example at least.")

    def __iter__(self) -> Iterator[tuple[Any, Any, Any]]:
        for batch in self._raw():
            if not isinstance(batch, tuple) or len(batch) not in (2, 3):
                raise ValueError(
                    f"Expected batches `(x, y)` or `(x, y, sample_weight)` in {self._part!r}. "
                    f"Received: {type(batch).__name__}"
                    + (f" of {len(batch)}." if isinstance(batch, tuple) else ".")
                )
            x, y, weight = (*batch, None)[:3]
            if not self._finite:
                check_finite(batch, self._part)
            if length_of(y, self._part):
                yield x, y, weight
        self._finite = True

    def _raw(self) -> Iterator[Any]:
        if isinstance(self._source, tf.data.Dataset):
            yield from self._source
            return
        for i in range(self._source.num_batches):
            batch = self._source[i]
            yield tuple(map(as_tensors, batch)) if isinstance(batch, tuple) else batch

    def _of_arrays(self, data: tuple[Any, ...], batch_size: int) -> tf.data.Dataset:
        if len(data) not in (2, 3):
            raise ValueError(f"{_FORMS} Received: a tuple of {len(data)} for {self._part!r}.")
        tensors = tuple(as_tensors(entry) for entry in data)
        lengths = [length_of(entry, self._part) for entry in keras.tree.flatten(tensors)]
        if len(set(lengths)) != 1:
            raise ValueError(
                f"Expected arrays of the same length in {self._part!r}. Received: {lengths}"
            )
        check_finite(tensors, self._part)
        self._finite = True
        return tf.data.Dataset.from_tensor_slices(tensors).batch(batch_size)

    def _check_ends(self) -> None:
        if isinstance(self._source, tf.data.Dataset):
            endless = self._source.cardinality() == tf.data.INFINITE_CARDINALITY
        else:
            endless = self._source.num_batches is None
        if endless:
            raise ValueError(
                f"The data {self._part!r} never end, so no mean over them can be taken. "
                "Use `dataset.take(n)`, or leave `repeat()` out."
            )

    def _refuse(self, data: Any) -> None:
        once = hasattr(data, "__next__")
        raise TypeError(
            _FORMS
            + (" A generator can be gone through only once." if once else "")
            + f" Received: {type(data).__name__} for {self._part!r}."
        )


def as_parts(data: Data | Mapping[str, Data], batch_size: int) -> dict[str, Batches]:
    """The parts by name; data without a name are called `"data"`.

    Example:

    >>> list(as_parts({"test": ([[1.0]], [0])}, batch_size=1))
    ['test']
    """
    check_integer("batch_size", batch_size, least=1)
    if isinstance(data, Mapping):
        if not data:
            raise ValueError('Expected one part of the data at least, as `{"test": (x, y)}`.')
        return {part: Batches(entry, batch_size, part) for part, entry in data.items()}
    return {"data": Batches(data, batch_size, "data")}


def as_tensors(entry: Any) -> Any:
    """The arrays of a dict, a tuple, or a list of arrays; a list of numbers is one array.

    As in Keras, float64 becomes the default float type.
    """
    if isinstance(entry, dict):
        return {name: as_tensors(value) for name, value in entry.items()}
    if isinstance(entry, tuple) or (
        isinstance(entry, list) and any(hasattr(value, "shape") for value in entry)
    ):
        return tuple(as_tensors(value) for value in entry)
    if entry is None:
        return None
    tensor = tf.convert_to_tensor(entry)
    return tf.cast(tensor, keras.config.floatx()) if tensor.dtype == tf.float64 else tensor


def check_finite(batch: Any, part: str) -> None:
    """Raises a `ValueError` if floats of `(x, y, ...)` hold a NaN or an Inf."""
    for name, entry in zip(("x", "y", "sample_weight"), batch, strict=False):
        for values in keras.tree.flatten(entry):
            floats = isinstance(values, tf.Tensor) and values.dtype.is_floating
            if floats and not tf.reduce_all(tf.math.is_finite(values)):
                raise ValueError(
                    f"Expected finite data in {part!r}. Received: a NaN or an Inf in its {name}. "
                    "Leave such examples out, or replace the values."
                )


def length_of(entry: Any, part: str) -> int:
    """The number of examples; raises a `ValueError` where there can be none."""
    first = next(iter(keras.tree.flatten(entry)), None)
    if first is None:
        raise ValueError(f"Expected labels in {part!r}. Received: {entry!r} in their place.")
    if len(first.shape) == 0:
        raise ValueError(
            f"Expected batches in {part!r}, whose labels have one entry an example. Received: a "
            "single number. Batch the dataset: `dataset.batch(256)`."
        )
    return int(first.shape[0])
