"""What belongs together: the masks of two tickets, the values that masks are about."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_lottery.enforcement import Enforcement
from keras_lottery.masks import Array, Masks, Path
from keras_lottery.tickets import Ticket

Values = Mapping[Path, Array]


class Pair(NamedTuple):
    """The masks of one weight in `a` and in `b`, under the path that `a` gives it."""

    path: Path
    a: NDArray[np.bool_]
    b: NDArray[np.bool_]


def masks_of(given: Masks | Ticket | Enforcement, name: str = "masks") -> Masks:
    """The masks of a ticket or a handle, or the masks themselves, checked to be bool arrays.

    Raises:
        ValueError: If there is none, or one is not a bool array; calls them `name`.
        TypeError: If they are neither a dict nor a ticket or handle.

    Example:

    >>> masks_of({"w": np.array([True, False])})["w"].tolist()
    [True, False]
    """
    masks = given.masks if isinstance(given, Ticket | Enforcement) else given
    if not isinstance(masks, Mapping):
        raise TypeError(
            f"`{name}` must be a dict of path to bool array, a ticket, or what `kl.prune` and "
            f"`kl.enforce` return. Received: {type(masks).__name__}"
        )
    if not masks:
        raise ValueError(f"`{name}` must hold a mask at least. Received: none.")
    for path, mask in masks.items():
        if np.asarray(mask).dtype != bool:
            raise ValueError(
                f"`{name}` must be bool arrays by path, True = alive. Received for {path!r}: "
                f"{np.asarray(mask).dtype}. (`weights != 0` makes a mask of weights.)"
            )
    return {path: np.asarray(mask) for path, mask in masks.items()}


def pair(a: Masks | Ticket, b: Masks | Ticket, names: tuple[str, str] = ("a", "b")) -> list[Pair]:
    """The masks of `a`, each with its partner in `b`: by path, else by order and shape.

    Raises:
        ValueError: If they belong to different architectures; names the first mismatch.

    Example:

    >>> pair({"net/w": np.array([True])}, {"net_1/w": np.array([False])})[0].path
    'net/w'
    """
    first, second = masks_of(a, names[0]), masks_of(b, names[1])
    partners = list(first) if first.keys() == second.keys() else list(second)
    for p, q in zip(first, partners, strict=False):
        if first[p].shape != second[q].shape:
            raise ValueError(
                f"`{names[0]}` and `{names[1]}` must be masks of one architecture. First mismatch: "
                f"{p!r} of shape {first[p].shape} against {q!r} of shape {second[q].shape}."
            )
    if len(first) != len(second):
        raise ValueError(
            f"`{names[0]}` and `{names[1]}` must be masks of one architecture. Received: "
            f"{len(first)} masks {list(first)} and {len(second)} masks {list(second)}."
        )
    return [Pair(p, first[p], second[q]) for p, q in zip(first, partners, strict=True)]


def values_at(masks: Masks, given: Values | Ticket, name: str) -> dict[Path, NDArray[np.float64]]:
    """The values of the masked weights as float64.

    Raises:
        ValueError: If a path is missing, of another shape, or holds a NaN or an Inf; calls
            the values `name`.

    Example:

    >>> values_at({"w": np.array([True])}, {"w": np.array([2]), "b": np.zeros(1)}, "before")
    {'w': array([2.])}
    """
    values = given.weights if isinstance(given, Ticket) else given
    found = {}
    for path, mask in masks.items():
        if path not in values:
            raise ValueError(
                f"`{name}` must hold a value for each mask. There is none for {path!r}. "
                f"Received paths: {list(values)}"
            )
        value = np.asarray(values[path]).astype(np.float64)
        if value.shape != mask.shape:
            raise ValueError(
                f"`{name}` must have the shapes of the masks. Received for {path!r}: "
                f"{value.shape}; its mask has {mask.shape}."
            )
        if not np.isfinite(value).all():
            raise ValueError(f"`{name}` must be finite. Received a NaN or an Inf in {path!r}.")
        found[path] = value
    return found
