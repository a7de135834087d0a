"""The one place that imports tfmot and tf_keras; both are optional.

Importing tfmot asks TensorFlow for Keras 2 by an environment variable, `TF_USE_LEGACY_KERAS`.
So `tf.keras` is looked up before, and the variable is put back after.
"""

import functools
import importlib
import os
import warnings
from typing import Any, NamedTuple

import tensorflow as tf

_ASKS_FOR_KERAS_2 = "TF_USE_LEGACY_KERAS"
_MODULES = ("tensorflow_model_optimization", "tf_keras")


class Legacy(NamedTuple):
    """The two modules.

    Attributes:
        tfmot: `tensorflow_model_optimization`.
        keras: `tf_keras`, the Keras 2 that tfmot's layers are made of.
    """

    tfmot: Any
    keras: Any


@functools.cache
def load() -> Legacy:
    """Imports tfmot and tf_keras, with the environment and `tf.keras` left as they were.

    Returns:
        Both modules. A later call returns the same.

    Raises:
        ImportError: If one of them is not installed; names the extra to install.

    Example:

    >>> legacy = load()
    >>> legacy.keras.__version__.split(".")[0]
    '2'
    >>> legacy.tfmot.sparsity.keras.ConstantSparsity(0.5, begin_step=0).target_sparsity
    0.5
    """
    _ = tf.keras.layers  # decides which Keras `tf.keras` is, once for the process
    before = os.environ.get(_ASKS_FOR_KERAS_2)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Legacy(*(importlib.import_module(name) for name in _MODULES))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _MODULES:
            raise
        raise ImportError(
            f"`keras_lottery.tfmot` needs {' and '.join(_MODULES)}, and {error.name!r} is not "
            "installed. Install both by: pip install 'keras-lottery[tfmot]'",
            name=error.name,
        ) from error
    finally:
        _set_environment(before)


def _set_environment(value: str | None) -> None:
    if value is None:
        os.environ.pop(_ASKS_FOR_KERAS_2, None)
    else:
        os.environ[_ASKS_FOR_KERAS_2] = value
