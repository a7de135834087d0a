"""A new layer with the settings of another, and what it keeps besides its weights."""

from tempfile import TemporaryDirectory
from types import FunctionType
from typing import Any

import keras

from keras_lottery.compaction.rules import Shrunk
from keras_lottery.weights import sublayers


def copy_layer(layer: Any, shrunk: Shrunk | None) -> Any:
    """A new layer or operation of the same class, with the changes of `shrunk`.

    Functions of the user among its settings are taken over as they are: they are in memory
    already, so they need neither be registered nor trusted.

    Raises:
        ValueError: If the layer cannot be copied; names it.
    """
    try:
        config = layer.get_config()
        if isinstance(layer, keras.layers.Lambda):
            return _copy_lambda(layer, config)
        config |= {k: v for k, v in vars(layer).items() if k in config and _is_of_the_user(v)}
        config |= shrunk.config if shrunk else {}
        if shrunk and any(p.old is None or p.source.shape != p.old.shape for p in shrunk.parts):
            config |= {name: "zeros" for name in config if _of_one_shape(name, config[name])}
        return type(layer).from_config(config)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"The layer {layer.name!r} ({type(layer).__name__}) cannot be copied: {error}"
        ) from error


def _is_of_the_user(value: Any) -> bool:
    return isinstance(value, FunctionType) and not str(value.__module__).startswith("keras.")


def _copy_lambda(layer: Any, config: dict[str, Any]) -> Any:
    if isinstance(config.get("output_shape"), dict):  # a function; Keras finds the shape itself
        del config["output_shape"]
    return type(layer)(**{**config, "function": layer.function, "mask": layer.mask})


def _of_one_shape(name: str, value: Any) -> bool:
    """Whether a setting is an initializer that may know no shape but the old one."""
    if not name.endswith("_initializer"):
        return False
    known = isinstance(value, dict) and value.get("module") == "keras.initializers"
    return not known or isinstance(value["config"].get("value"), dict)


def copy_adapted(old: Any, new: Any) -> None:
    """What preprocessing layers learned by `adapt`; it is more than their variables."""
    for source, copy in zip(sublayers(old), sublayers(new), strict=True):
        if not hasattr(source, "adapt"):
            continue
        store: dict[str, Any] = {}
        source.save_own_variables(store)
        copy.load_own_variables(store)
        if hasattr(source, "save_assets"):
            with TemporaryDirectory() as folder:
                source.save_assets(folder)
                copy.load_assets(folder)
