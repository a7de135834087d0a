"""The papers' networks, with the papers' initialization, and users' own."""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import keras
from keras import layers

Builder = Callable[[tuple[int, ...], int], keras.Model]


def lenet_300_100(input_shape: tuple[int, ...], classes: int) -> keras.Model:
    """LeNet-300-100: two hidden layers of 300 and 100 ReLU units, logits at the end.

    266,610 parameters on MNIST. Glorot normal initialization.

    Source: Frankle & Carbin, 1803.03635, figure 2.

    Example:

    >>> lenet_300_100((28, 28, 1), 10).count_params()
    266610
    """
    init = "glorot_normal"
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Flatten(),
            layers.Dense(300, "relu", kernel_initializer=init),
            layers.Dense(100, "relu", kernel_initializer=init),
            layers.Dense(classes, kernel_initializer=init),
        ],
        name="lenet_300_100",
    )


NAMED: dict[str, Builder] = {"lenet_300_100": lenet_300_100}


def resolve(name: str) -> Builder:
    """The builder `(input_shape, classes) -> model` of a name or of `module:function`.

    The model ends in logits. `module` is looked for in the working folder too.

    Raises:
        ValueError: If there is no such model; lists the valid names.

    Example:

    >>> resolve("lenet_300_100") is lenet_300_100
    True
    """
    if name in NAMED:
        return NAMED[name]
    module, _, function = name.partition(":")
    if not function:
        raise ValueError(
            f"Unknown model {name!r}. Expected one of {sorted(NAMED)} or `module:function`, a "
            "function `(input_shape, classes) -> keras.Model`."
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"Cannot load the model {name!r}: {error}") from error
    return found  # type: ignore[no-any-return]
