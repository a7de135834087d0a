"""`kl.export.saved_model`: a TensorFlow SavedModel that is as small as its sparse weights.

Anything that loads a SavedModel loads it, without Keras or this package. The
weights are saved as few bytes, and unpacked once, when the model is loaded (`packing.Unpacker`).
From then on they are dense, and a call costs what it costs without pruning.
"""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np
import tensorflow as tf

from keras_lottery import weights
from keras_lottery.export.coding import entropy_bound
from keras_lottery.export.endpoints import Signature, Use, endpoints, served, use
from keras_lottery.export.packing import Held, Unpacker, slabs
from keras_lottery.export.targets import checked_target, exportable
from keras_lottery.masks import Array

_STORAGE = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
# A model is packed if that saves so much: it takes time to load.
_LEAST_SAVED, _LEAST_PART = 256, 0.02
_SLAB = "-"


def saved_model(
    model: keras.Model,
    path: str | os.PathLike[str],
    signatures: Mapping[str, Signature] | None = None,
    input_signature: Any = None,
    storage: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a SavedModel whose size follows the density of the weights.

    It has the endpoint `serve` and the signature `serving_default`, as `model.export()`
    gives them, and loads wherever that does. Each weight is stored once, its zeros in hardly
    more bytes than the entropy of the mask asks for (`keras_lottery.export.coding`), and
    decoded once, when the model is loaded; the outputs are the same, bit for bit. `Masked`
    layers are taken out in a copy; masks under `kl.enforce` stay in force.

    Args:
        model: A built Keras model of any kind.
        path: Of the folder to write, in a folder that exists.
        signatures: Dict of name to a further endpoint and signature: a built model, say one
            that shares layers with `model` and gives its features, or a pair of a function
            that calls `model` or its layers and the `input_signature` of that function.
            Weights they share with `model` are stored once.
        input_signature: A list with, for each argument of `model`, a `tf.TensorSpec` or a
            list or dict of them. Default: from the model's inputs, for any batch size; for
            a subclassed model from the shapes it was built with.
        storage: `"float16"` or `"bfloat16"` to store float32 weights of rank 2 or more
            in 16 bits; they are cast back when the model is loaded. Default: as they are.
        overwrite: Whether an existing folder may be replaced.

    Returns:
        The path.

    Raises:
        ValueError: If the model is not built, its inputs are not known, it calls Python
            code that no graph can hold, a weight is too large for `storage`, or the path
            cannot be written. Nothing is then written.

    Example:

    >>> import tempfile
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     loaded = tf.saved_model.load(saved_model(model, folder + "/served"))
    >>> loaded.serve(tf.zeros((3, 2))).shape
    TensorShape([3, 1])
    """
    target = checked_target(path, overwrite=overwrite)
    plain, signatures = exportable(model), dict(signatures or {})
    if storage not in (None, *_STORAGE):
        raise ValueError(f"`storage` must be one of {[None, *_STORAGE]}. Received: {storage!r}")
    if signatures and plain is not model:
        raise ValueError(
            f"The model {model.name!r} holds `Masked` layers, which are taken out in a copy: "
            "`signatures` would not share its weights. Take them out with `kl.strip` first, "
            "and build what is in `signatures` from the model that this returns."
        )
    found = endpoints(plain, signatures, input_signature)
    models = [plain, *(s for s in signatures.values() if isinstance(s, keras.Model))]
    of_models = use(found, weights.name([v for m in models for v in _variables(m)]))
    root = tf.Module()
    held = _hold(root, of_models, storage)
    functions = {name: served(endpoint, held) for name, endpoint in found.items()}
    beside = [*of_models.others, *(table for m in models for table in _tables(m))]
    if beside:
        root.beside = beside
    with _replacing(target) as temporary:
        _save(root, functions, temporary)
        _check_unsaved(temporary, held)
    return target


def _hold(root: tf.Module, found: Use, storage: str | None) -> Held:
    """Gives `root` the variables that stand for those that are used, and what fills them."""
    values = {path: variable.numpy() for path, variable in found.used.items()}
    stored = {p: _stored(p, v, storage) for p, v in values.items() if p not in found.changed}
    packed = {path: array for path, array in stored.items() if _packable(array)}
    if not _pays(list(packed.values()), sum(values[path].nbytes for path in packed)):
        packed = {}
    name = uuid.uuid4().hex[:6]  # TensorFlow 1 shares the variables of one name in a session.
    plain = [
        (variable, tf.Variable(values[path], trainable=False, name=name))
        for path, variable in found.used.items()
        if path not in packed
    ]
    filled = slabs([(found.used[path], array) for path, array in packed.items()], name)
    held = Held(plain, filled, Unpacker(filled, name) if filled else None)
    # Short names: they are most of the bytes that a variable costs beside its value.
    for index, (_, own) in enumerate(plain):
        setattr(root, str(index), own)
    for index, slab in enumerate(filled):
        setattr(root, f"{_SLAB}{index}", slab.own)
    if held.unpacker is not None:
        root.unpacker, root.packed = held.unpacker, held.unpacker.packed
    return held


def _stored(path: str, value: Array, storage: str | None) -> Array:
    """The weight in the dtype in which it is stored."""
    if storage is None or value.dtype != np.float32 or value.ndim < 2:
        return value
    with np.errstate(over="ignore"):
        half = value.astype(_STORAGE[storage])
    lost = np.isinf(half) & np.isfinite(value)
    if np.any(lost):
        raise ValueError(
            f"The weight {path!r} holds {value[lost][0]}, which is too large for "
            f"`storage={storage!r}`. Use 'bfloat16', which goes as far as float32, or None."
        )
    return np.asarray(half)


def _packable(array: Array) -> bool:
    """Whether it is a weight of floats, of a size that TensorFlow's 32 bit places can tell."""
    dtype = tf.as_dtype(array.dtype)
    return dtype.is_floating and dtype.size > 1 and array.size < 2**31


def _pays(arrays: Sequence[Array], nbytes: int) -> bool:
    """Whether weights of `nbytes`, to be stored as `arrays`, are to be packed."""
    return nbytes - entropy_bound(arrays) >= max(_LEAST_SAVED, _LEAST_PART * nbytes)


def _variables(model: keras.Model) -> list[keras.Variable]:
    """The model's variables, and those that only a layer knows: states of recurrent ones."""
    return [
        *model.variables,
        *(v for layer in weights.sublayers(model) for v in weights.owned(layer)),
    ]


def _tables(model: keras.Model) -> list[Any]:
    """The lookup tables that layers of the model hold."""
    held = (value for layer in weights.sublayers(model) for value in vars(layer).values())
    return [x for x in held if isinstance(x, tf.saved_model.experimental.TrackableResource)]


def _save(root: tf.Module, functions: Mapping[str, Any], folder: Path) -> None:
    for name, function in functions.items():
        setattr(root, name, function)
    signatures = {{"serve": "serving_default"}.get(n, n): f for n, f in functions.items()}
    try:
        tf.saved_model.save(root, str(folder), signatures=signatures)
    except (AssertionError, ValueError, TypeError) as error:
        raise ValueError(f"TensorFlow cannot save the model: {error}") from error


def _check_unsaved(folder: Path, held: Held) -> None:
    """Raises an error if TensorFlow saved what `packing` tells it not to."""
    saved = tf.train.list_variables(str(folder / "variables/variables")) if held.slabs else []
    if any(name.startswith(_SLAB) for name, _ in saved):
        raise RuntimeError(
            f"TensorFlow {tf.__version__} saves the dense weights too, other than the versions "
            "that this package was tested with. Use one of those, or `model.export()`."
        )


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A folder beside `target` that takes its place when all went well, else is removed."""
    mark = f"{os.getpid()}.{uuid.uuid4().hex[:8]}"
    new, old = (target.with_name(f".{target.name}.{mark}.{which}") for which in ("new", "old"))
    try:
        yield new
        for file in new.rglob("*"):
            if file.is_file():
                _flush(file)
        if target.exists():
            os.rename(target, old)
        try:
            os.rename(new, target)
        except BaseException:
            if old.exists():
                os.rename(old, target)
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
    if old.is_symlink():
        old.unlink()
    shutil.rmtree(old, ignore_errors=True)


def _flush(file: Path) -> None:
    """Has the file's content written to the disk."""
    with open(file, "rb") as handle:
        os.fsync(handle.fileno())
