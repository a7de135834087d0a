"""From a name to a model: the papers' networks and users' own."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_lottery.experiments.models.conv import conv_2, conv_4, conv_6, lenet_5
from keras_lottery.experiments.models.dense import lenet_300_100
from keras_lottery.experiments.models.residual import resnet_18, resnet_20, resnet_50
from keras_lottery.experiments.models.vgg import vgg_16, vgg_19
from keras_lottery.experiments.models.vit import vit

# (input_shape, classes, **options) -> model
Builder = Callable[..., keras.Model]

NAMED: dict[str, Builder] = {
    "lenet_300_100": lenet_300_100,
    "lenet_5": lenet_5,
    "conv_2": conv_2,
    "conv_4": conv_4,
    "conv_6": conv_6,
    "resnet_20": resnet_20,
    "resnet_18": resnet_18,
    "resnet_50": resnet_50,
    "vgg_16": vgg_16,
    "vgg_19": vgg_19,
    "vit": vit,
}


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


def build(name: str, input_shape: tuple[int, ...], classes: int, **options: Any) -> keras.Model:
    """The model of a name for data of that shape, checked.

    Args:
        name: As in `resolve`.
        input_shape: Of one sample, without the batch.
        classes: Number of classes.
        **options: Passed on to the builder, as `dropout=0.5` to `conv_2`; those that are
            `None` are not.

    Returns:
        The built model.

    Raises:
        ValueError: If the builder takes no such option, or gives no built Keras model with an
            output a class.

    Example:

    >>> build("conv_2", (8, 8, 1), 10, dropout=0.5).output_shape
    (None, 10)
    """
    builder = resolve(name)
    options = {key: value for key, value in options.items() if value is not None}
    for option in options:
        _check_takes(builder, name, option)
    model = builder(input_shape, classes, **options)
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(f"The model {name!r} must be a built Keras model. Received: {model!r}")
    outputs = model(np.zeros((1, *input_shape), np.float32)).shape
    if len(outputs) != 2 or outputs[-1] < classes:
        raise ValueError(
            f"The model {name!r} must give one logit for each of {classes} classes. Received: "
            f"an output of shape {tuple(outputs)}."
        )
    return model


def _check_takes(builder: Builder, name: str, option: str) -> None:
    if not _takes(builder, option):
        able = [known for known, other in NAMED.items() if _takes(other, option)]
        raise ValueError(
            f"The model {name!r} takes no option {option!r}. Named models that do: "
            f"{able or 'none'}. Leave the option out, or choose one of them."
        )


def _takes(builder: Builder, option: str) -> bool:
    """Whether a call `builder(..., option=...)` is possible."""
    parameters = inspect.signature(builder).parameters.values()
    return any(
        p.kind is p.VAR_KEYWORD or (p.name == option and p.kind is not p.POSITIONAL_ONLY)
        for p in parameters
    )
