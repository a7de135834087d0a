"""Flags of the settings of an experiment: a preset, and each field of `Config`."""

import dataclasses
import math
import types
import typing
from pathlib import Path
from typing import Any

from absl import flags

from keras_lottery.experiments import datasets, models, plan
from keras_lottery.experiments.config import Config, parse_steps
from keras_lottery.experiments.presets import preset

_PRESET = flags.DEFINE_string(
    "preset", None, "A paper's protocol; see `keras-lottery presets`. Other flags override it."
)
_SCALE = flags.DEFINE_float(
    "scale", 1.0, "Makes trainings, warmup, drops and rewind point so many times as long."
)
flags.register_validator("scale", lambda scale: 0 < scale < math.inf, "must be above 0")
_MORE = {"model": f" The networks are: {', '.join(models.NAMED)}."}
_STEPS = ("steps", "eval_every", "warmup", "rewind_to", "lr_drops")


def _define(field: Any, hints: dict[str, Any]) -> None:
    words, default = field.metadata["help"] + _MORE.get(field.name, ""), field.default
    kinds = typing.get_args(hints[field.name]) or (hints[field.name],)
    kind = next(k for k in kinds if k is not types.NoneType)
    if field.metadata["choices"]:
        flags.DEFINE_enum(field.name, default, field.metadata["choices"], words)
    elif typing.get_origin(hints[field.name]) is tuple:
        flags.DEFINE_list(field.name, list(default), words)
    else:
        {int: flags.DEFINE_integer, float: flags.DEFINE_float, bool: flags.DEFINE_bool}.get(
            kind, flags.DEFINE_string
        )(field.name, default, words)


for _field in dataclasses.fields(Config):
    _define(_field, typing.get_type_hints(Config))


def config() -> Config:
    """The settings: of the preset, then of the flags that are given, scaled.

    Raises:
        ValueError: For a preset or a value that cannot be.
    """
    settings = dict(preset(_PRESET.value).settings) if _PRESET.value else {}
    for field in dataclasses.fields(Config):
        flag = flags.FLAGS[field.name]
        if flag.present:
            given = flag.value
            _check_text(field.name, given)
            settings[field.name] = tuple(given) if isinstance(given, list) else given
    return Config(**settings).complete().scaled(_SCALE.value)


def _check_text(name: str, given: Any) -> None:
    """Names the flag whose text cannot be read."""
    try:
        for text in (given if isinstance(given, list) else [given]) if name in _STEPS else []:
            parse_steps(text, 1)
    except ValueError as error:
        raise ValueError(f"--{name}: {error}") from error


def rounds(given: int | None) -> int:
    """How many rounds: what is given, else the preset's, else 16."""
    if given is not None:
        return given
    return preset(_PRESET.value).rounds if _PRESET.value else plan.Plan().rounds


def folder(config: Config, parent: str = "runs") -> Path:
    """`parent/NAME-HASH`: the preset or data set and model, and all settings."""
    name = _PRESET.value or f"{datasets.short_name(config.dataset)}-{config.model}"
    safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in name)
    return Path(parent) / f"{safe}-{config.identity()}"


def preset_name() -> str | None:
    """The preset's name."""
    return _PRESET.value  # type: ignore[no-any-return]
