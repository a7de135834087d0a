"""Checks of what scopes are given, and which axis of a weight is meant."""

import numbers
import re
from collections.abc import Mapping
from typing import Any

from keras_lottery.masks import Path

Axis = int | Mapping[str, int]


def is_integer(value: Any) -> bool:
    """Whether it is a Python or NumPy integer, and not a bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_pattern(name: str, pattern: str | None) -> None:
    """Raises a `ValueError` unless `pattern` is `None` or a regex."""
    try:
        re.compile(pattern or "")
    except (re.error, TypeError) as error:
        raise ValueError(f"`{name}` must be a regex. Received: {pattern!r} ({error})") from None


def check_axis(axis: Any) -> None:
    """Raises a `ValueError` unless `axis` is an integer or a dict of regex to integer."""
    axes = axis if isinstance(axis, Mapping) else {"": axis}
    for pattern, value in axes.items():
        check_pattern("axis", pattern)
        if not is_integer(value):
            raise ValueError(
                f"`axis` must be an integer or a dict of regex to integer. Received: {axis!r}"
            )


def axis_of(path: Path, shape: tuple[int, ...], axis: Axis, default: int) -> int:
    """A path's axis, counted from the front."""
    if isinstance(axis, Mapping):
        axis = next((a for pattern, a in axis.items() if re.search(pattern, path)), default)
    if not -len(shape) <= axis < len(shape):
        raise ValueError(
            f"{path!r} of shape {shape} has no axis {axis}. Name another in `axis`, as a dict of "
            "regex to integer, or `exclude` the path."
        )
    return axis % len(shape)
