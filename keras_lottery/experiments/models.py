"""The papers' networks, with the papers' initialization, and users' own."""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
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
    if not (module and function):
        raise ValueError(
            f"Unknown model {name!r}. Expected one of {sorted(NAMED)} or `module:function`, a "
            "function `(input_shape, classes) -> keras.Model`."
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, SyntaxError, TypeError, ValueError) as error:
        raise ValueError(f"Cannot load the model {name!r}: {error}") from error
    if not callable(found):
        raise ValueError(f"Cannot load the model {name!r}: it is {found!r}, not a function.")
    return found  # type: ignore[no-any-return]


def build(name: str, input_shape: tuple[int, ...], classes: int) -> keras.Model:
    """The model of a name for data of that shape, checked.

    Raises:
        ValueError: If the builder gives no built Keras model with an output a class.
    """
    model = resolve(name)(input_shape, classes)
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(f"The model {name!r} must be a built Keras model. Received: {model!r}")
    outputs = model(np.zeros((1, *input_shape), np.float32)).shape
    if len(outputs) != 2 or outputs[-1] < classes:
        raise ValueError(
            f"The model {name!r} must give one logit for each of {classes} classes. Received: "
            f"an output of shape {tuple(outputs)}."
        )
    return model
