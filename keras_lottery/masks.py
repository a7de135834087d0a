"""What a mask is: counts, density, overlap, shuffling, bits. NumPy only.

Masks are a `dict` from a weight's path to a bool array of the weight's shape;
True means that the weight is alive.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Path = str
Masks = dict[Path, NDArray[np.bool_]]
Array = NDArray[np.generic]


def full(shapes: Mapping[Path, tuple[int, ...]]) -> Masks:
    """Masks of a dense network: everything alive.

    Args:
        shapes: Dict of path to the shape of the weight.

    Example:

    >>> full({"dense/kernel": (2, 1)})["dense/kernel"].tolist()
    [[True], [True]]
    """
    return {path: np.ones(shape, bool) for path, shape in shapes.items()}


def counts(masks: Masks) -> dict[Path, tuple[int, int]]:
    """Alive and all weights of each path.

    Example:

    >>> counts({"w": np.array([True, False, False])})
    {'w': (1, 3)}
    """
    return {p: (int(np.count_nonzero(m)), m.size) for p, m in masks.items()}


def density(masks: Masks) -> float:
    """Fraction of alive weights over all masked weights, in [0, 1].

    Example:

    >>> density({"w": np.array([True, False]), "v": np.array([True, True])})
    0.75
    """
    pairs = counts(masks).values()
    return sum(a for a, _ in pairs) / max(1, sum(n for _, n in pairs))


def layer_density(masks: Masks) -> dict[Path, float]:
    """Density of each path, in [0, 1].

    Example:

    >>> layer_density({"w": np.array([True, False])})
    {'w': 0.5}
    """
    return {p: alive / max(1, n) for p, (alive, n) in counts(masks).items()}


def nested(inner: Masks, outer: Masks) -> bool:
    """Whether every alive weight of `inner` is alive in `outer`.

    Example:

    >>> nested({"w": np.array([True, False])}, {"w": np.array([True, True])})
    True
    """
    return inner.keys() == outer.keys() and not any(np.any(inner[p] & ~outer[p]) for p in inner)


def overlap(a: Masks, b: Masks) -> float:
    """Jaccard overlap of two masks of the same paths and shapes, in [0, 1].

    Alive in both over alive in either; 1.0 if nothing is alive in either.

    Example:

    >>> overlap({"w": np.array([True, True])}, {"w": np.array([True, False])})
    0.5
    """
    both = sum(int(np.count_nonzero(a[p] & b[p])) for p in a)
    either = sum(int(np.count_nonzero(a[p] | b[p])) for p in a)
    return both / either if either else 1.0


def shuffle_orders(masks: Masks, seed: int) -> dict[Path, NDArray[np.intp]]:
    """One random order of the positions of each path, from `seed`.

    Paths draw in their sorted order, so the order of the dict does not matter.
    """
    rng = np.random.default_rng(seed)
    return {path: rng.permutation(masks[path].size) for path in sorted(masks)}


def reorder(array: Array, order: NDArray[np.intp]) -> Array:
    """`array` with its flat positions taken in `order`; same shape and dtype."""
    return np.asarray(array.ravel()[order].reshape(array.shape))


def shuffle(masks: Masks, seed: int) -> Masks:
    """Masks with the positions of each path permuted; counts per path stay.

    Args:
        masks: Dict of path to bool array.
        seed: Integer.

    Example:

    >>> mask = {"w": np.array([True, False, False, False])}
    >>> counts(shuffle(mask, seed=0))
    {'w': (1, 4)}
    """
    orders = shuffle_orders(masks, seed)
    return {p: np.asarray(reorder(m, orders[p]), bool) for p, m in masks.items()}


def pack(masks: Masks) -> NDArray[np.uint8]:
    """All masks as one row of bits, in the dict's order, padded to a byte.

    Example:

    >>> pack({"w": np.array([True, False, True])}).tolist()
    [160]
    """
    flat = [m.ravel() for m in masks.values()]
    return np.packbits(np.concatenate(flat) if flat else np.zeros(0, bool))


def unpack(bits: NDArray[np.uint8], shapes: Mapping[Path, tuple[int, ...]]) -> Masks:
    """The reverse of `pack`.

    Raises:
        ValueError: If `bits` does not hold as many bits as `shapes` needs.

    Example:

    >>> unpack(np.array([160], np.uint8), {"w": (3,)})["w"].tolist()
    [True, False, True]
    """
    sizes = [int(np.prod(shape, dtype=np.int64)) for shape in shapes.values()]
    if bits.size != -(-sum(sizes) // 8):
        raise ValueError(
            f"Expected {-(-sum(sizes) // 8)} bytes of mask bits for {sum(sizes)} weights. "
            f"Received: {bits.size} bytes."
        )
    flat = np.unpackbits(bits, count=sum(sizes)).view(bool)
    parts = np.split(flat, np.cumsum(sizes)[:-1]) if sizes else []
    return {p: part.reshape(s) for (p, s), part in zip(shapes.items(), parts, strict=True)}
