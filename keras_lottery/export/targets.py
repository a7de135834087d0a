"""What every export checks first: the place it writes to and the model it takes."""

import os
from pathlib import Path

import keras

from keras_lottery import wrappers


def checked_target(
    path: str | os.PathLike[str], suffix: str | None = None, overwrite: bool = False
) -> Path:
    """The path of an export, after it was found that the export may be written there.

    Args:
        path: Where the export shall be. Its folder must exist.
        suffix: The ending that the name of a file must have, `".keras"` say; `None` for an
            export that is a folder.
        overwrite: Whether what is there may be replaced; a file only by a file, a folder
            only by a folder.

    Returns:
        The same path.

    Raises:
        ValueError: If the name is missing or ends otherwise, something is there already,
            or the folder is missing or cannot be written.

    Example:

    >>> checked_target("model.h5", suffix=".keras")
    Traceback (most recent call last):
    ...
    ValueError: Expected a path that ends in '.keras'. Received: 'model.h5'
    """
    target, shown = Path(path), repr(os.fspath(path))
    if suffix is not None and target.suffix != suffix:
        raise ValueError(f"Expected a path that ends in {suffix!r}. Received: {shown}")
    if not target.name.strip("."):
        raise ValueError(f"Expected a path with a name at its end. Received: {shown}")
    if not target.parent.is_dir():
        raise ValueError(
            f"The folder {str(target.parent)!r} does not exist: make it first, or choose "
            f"another path. Received: {shown}"
        )
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise ValueError(
            f"The folder {str(target.parent)!r} cannot be written: choose another path. "
            f"Received: {shown}"
        )
    if os.path.lexists(target) and not overwrite:
        raise ValueError(
            f"{shown} exists already and is left as it is: choose another path, or pass "
            "`overwrite=True` to replace it."
        )
    if os.path.lexists(target) and target.is_dir() != (suffix is None):
        has, writes = ("file", "folder") if suffix is None else ("folder", "file")
        raise ValueError(
            f"{shown} is a {has} and would be replaced by a {writes}: choose another path."
        )
    return target


def exportable(model: keras.Model) -> keras.Model:
    """The plain Keras model that an export writes; `model` itself is left as it is.

    Masks under `kl.enforce` stay in force: pruned weights are zero anyway.

    Returns:
        The same object; a copy without them if it holds `kl.wrappers.Masked` layers.

    Raises:
        ValueError: If it is not a Keras model, or not built.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> exportable(model) is model
    True
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"Expected a `keras.Model`. Received: {model!r} of {type(model)}")
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} has no weights yet because its input shape is unknown. "
            "Add a `keras.Input`, call `model.build(input_shape)` or call it on a batch first."
        )
    return wrappers.unwrapped(model)
