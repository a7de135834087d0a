"""`kl.export.keras`: a plain `.keras` file, without what only training needs."""

import io
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
from keras import Model, layers, saving

from keras_lottery import weights
from keras_lottery.export.targets import checked_target, exportable
from keras_lottery.files import write_atomic

_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"

# Keras takes a larger part of a file that shrank more than this for an attack.
_LARGE, _MOST_SHRINKING = 1 << 28, 100


def keras(
    model: Model,
    path: str | os.PathLike[str],
    compress: bool = False,
    overwrite: bool = False,
    optimizer: bool = False,
) -> Path:
    """Writes a `.keras` file that loads anywhere, in a process without this package too.

    `Masked` layers are taken out in a copy, their weights multiplied by the masks. Masks
    under `kl.enforce` stay in force. The loaded model gives the same outputs, bit for bit.
    Custom layers need on loading what they need in every `.keras` file.

    Args:
        model: A built Keras model of any kind.
        path: Of the file, ending in `.keras`, in a folder that exists.
        compress: Whether to deflate the file, so that zeros cost little. Keras loads it
            all the same, a little slower.
        overwrite: Whether an existing file may be replaced.
        optimizer: Whether to keep the optimizer's state and what `compile` was given, so
            that training can go on. An Adam's state is twice the weights.

    Returns:
        The path.

    Raises:
        ValueError: If the model is not built, a layer cannot be saved, or the path cannot
            be written. Nothing is then written.

    Example:

    >>> from keras import Input, Sequential
    >>> model = Sequential([Input((2,)), layers.Dense(1)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     keras(model, folder + "/small.keras", compress=True).name
    'small.keras'
    """
    target = checked_target(path, ".keras", overwrite)
    plain = exportable(model)
    if optimizer and plain is not model:
        raise ValueError(
            f"The model {model.name!r} holds `Masked` layers. They are taken out, and the "
            "optimizer's state does not fit the model without them: pass `optimizer=False`."
        )
    parts = _saved(plain)
    if not optimizer:
        parts[_CONFIG] = json.dumps(_without_compile(json.loads(parts[_CONFIG]))).encode()
        parts[_WEIGHTS] = _without_optimizers(parts[_WEIGHTS], set(_optimizer_names(plain)))
    write_atomic(target, _zipped(parts, compress))
    return target


def _saved(model: Model) -> dict[str, bytes]:
    """The parts of the file that Keras saves, by name."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.keras")
        try:
            model.save(file)
        except OSError:
            raise
        except Exception as error:  # whatever a custom layer may raise
            raise ValueError(
                f"The model {model.name!r} cannot be saved{_culprits(model)}. Give each custom "
                "layer a `get_config` that returns its arguments as numbers, strings, lists and "
                f"dicts. Keras says: {error}"
            ) from error
        with zipfile.ZipFile(file) as archive:
            return {name: archive.read(name) for name in archive.namelist()}


def _culprits(model: Model) -> str:
    """The innermost layers that cannot be saved, as a part of a sentence."""
    failing = {id(layer): layer for layer in weights.sublayers(model) if not _saves(layer)}
    failing.pop(id(model), None)
    innermost = [
        f"{layer.name!r} of {type(layer).__name__}"
        for layer in failing.values()
        if not any(id(below) in failing for below in weights.sublayers(layer) if below is not layer)
    ]
    return f" because of its layers: {', '.join(innermost)}" if innermost else ""


def _saves(layer: layers.Layer) -> bool:
    try:
        json.dumps(saving.serialize_keras_object(layer))
    except Exception:  # whatever a custom layer may raise
        return False
    return True


def _without_compile(config: Any) -> Any:
    """A config in which no model, nested ones included, was compiled."""
    if isinstance(config, dict):
        compiled = {"class_name", "compile_config"} <= config.keys()
        kept = config.keys() - ({"compile_config"} if compiled else set())
        return {key: _without_compile(config[key]) for key in config if key in kept}
    return [_without_compile(item) for item in config] if isinstance(config, list) else config


def _optimizer_names(model: Model) -> Iterator[str]:
    """Of the model and of models inside it."""
    for layer in weights.sublayers(model):
        found = getattr(layer, "optimizer", None) if isinstance(layer, Model) else None
        if found is not None:
            yield found.name


def _without_optimizers(content: bytes, names: set[str]) -> bytes:
    """The HDF5 file written anew, since it would not give back the space of what goes."""
    fresh = io.BytesIO()
    with h5py.File(io.BytesIO(content), "r") as source, h5py.File(fresh, "w") as target:
        _copy(source, target, names)
    return fresh.getvalue()


def _copy(source: Any, target: Any, names: set[str]) -> None:
    """Copies groups, datasets and attributes, but for optimizers of these names."""
    target.attrs.update(source.attrs)
    for name, item in source.items():
        if not isinstance(item, h5py.Group):
            source.copy(item, target, name)
        elif not _is_optimizer(name, item, names):
            _copy(item, target.create_group(name), names)


def _is_optimizer(name: str, group: Any, names: set[str]) -> bool:
    """Keras calls the group after the attribute and notes the optimizer's name in it."""
    return name == "optimizer" and "vars" in group and group["vars"].attrs.get("name") in names


def _zipped(parts: dict[str, bytes], compress: bool) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in parts.items():
            deflate = compress and not _shrinks_too_much(content)
            archive.writestr(name, content, zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED)
    return packed.getvalue()


def _shrinks_too_much(content: bytes) -> bool:
    """Whether Keras might refuse the deflated content; the fast level packs half as well."""
    large = len(content) > _LARGE
    return large and len(zlib.compress(content, 1)) * _MOST_SHRINKING < 2 * len(content)
