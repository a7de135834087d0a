"""A ticket: masks, the weights at the rewind point, and where they came from.

The file is safetensors with three byte strings: `masks` (one bit a prunable weight),
`alive` (the values of the alive weights, in the same order) and `rest` (the other
variables whole). Paths, shapes, dtypes, checksums and the ticket's metadata are JSON in
the safetensors header, deflated, so that a file costs 4 bytes an alive weight, 1 bit a
prunable weight, the unpruned variables and a few hundred bytes.
"""

import base64
import json
import math
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import ml_dtypes  # noqa: F401  (registers bfloat16 with NumPy)
import numpy as np
import safetensors
from safetensors.numpy import save as to_safetensors

from keras_lottery import enforcement, weights
from keras_lottery import masks as mask_ops
from keras_lottery.files import write_atomic
from keras_lottery.masks import Array, Masks, Path

FORMAT = "keras_lottery.ticket"
VERSION = 1
_MAX_HEADER = 64 << 20
_UNREADABLE = (
    ValueError, TypeError, AttributeError, OSError, RecursionError, zlib.error,
    safetensors.SafetensorError,
)  # fmt: skip
_DTYPES = {
    *("float16", "bfloat16", "float32", "float64", "bool"),
    *(
        f"{kind}int{bits}" if kind else f"int{bits}"
        for kind in ("", "u")
        for bits in (8, 16, 32, 64)
    ),
}


@dataclass(frozen=True)
class Ticket:
    """A sub-network: what is alive, what it starts from, where it came from.

    Args:
        masks: Dict of path to bool array, True = alive; in the model's order.
        weights: Dict of path to array: every weight and statistic of the model at the
            rewind point, 0 where a mask prunes; in the model's order.
        metadata: JSON-like dict: round, densities, criterion, scope, rewind, seed,
            versions, metrics.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> kernel = model.layers[0].kernel.path
    >>> ticket = Ticket.of(model, {kernel: np.array([[True], [False]])})
    >>> ticket.density
    0.5
    """

    masks: Masks
    weights: dict[Path, Array]
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values = dict(self.weights)
        for path, mask in self.masks.items():
            if path not in values or values[path].shape != mask.shape:
                raise ValueError(f"The ticket has a mask but no weight of its shape for {path!r}.")
            values[path] = np.where(mask, values[path], values[path].dtype.type(0))
        object.__setattr__(self, "weights", values)

    @classmethod
    def of(
        cls, model: keras.Model, masks: Masks, metadata: Mapping[str, Any] | None = None
    ) -> "Ticket":
        """A ticket of the weights that `model` has now."""
        values = weights.read(weights.all_weights(model))
        return cls(dict(masks), values, dict(metadata or {}))

    @property
    def density(self) -> float:
        """Alive over all prunable weights, in [0, 1]."""
        return mask_ops.density(self.masks)

    def apply(self, model: keras.Model) -> enforcement.Enforcement:
        """Writes the weights into `model` and enforces the masks; the next fit trains it.

        Variables are matched by path, else (fresh models get new names) one by one in
        order, if all shapes agree. The optimizer keeps its state, zeroed where pruned:
        compile anew to start from a fresh one.

        Returns:
            The handle of `kl.enforce`.

        Raises:
            ValueError: If the model is of another architecture; names the first
                mismatch. The model is then untouched.
        """
        if not model.built:
            raise ValueError(
                f"The model {model.name!r} is not built: call it on a batch, or give it a "
                "`keras.Input`, before a ticket is applied."
            )
        target = weights.all_weights(model)
        new = match(self.weights, target)
        weights.write(target, {new[p]: value for p, value in self.weights.items()})
        return enforcement.enforce(model, {new[p]: mask for p, mask in self.masks.items()})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the ticket to a safetensors file, atomically.

        Raises:
            OSError: If the file cannot be written; nothing is left half-written.
        """
        alive = [self.weights[p][m].tobytes() for p, m in self.masks.items()]
        rest = [v.tobytes() for p, v in self.weights.items() if p not in self.masks]
        parts = {
            "masks": mask_ops.pack(self.masks),
            "alive": np.frombuffer(b"".join(alive), np.uint8),
            "rest": np.frombuffer(b"".join(rest), np.uint8),
        }
        about = {
            "layout": [[p, list(v.shape), v.dtype.name] for p, v in self.weights.items()],
            "masked": list(self.masks),
            "crc32": {name: zlib.crc32(part.data) for name, part in parts.items()},
            "metadata": self.metadata,
        }
        packed = base64.b85encode(zlib.compress(json.dumps(about).encode(), 9)).decode()
        # One entry, since safetensors writes several in an order that changes.
        write_atomic(path, to_safetensors(parts, {FORMAT: f"{VERSION} {packed}"}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Ticket":
        """Reads a ticket file, checked whole before anything is built from it.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is damaged, truncated, foreign or of a later format;
                names the file and the reason.
        """
        if not os.path.exists(path):
            raise FileNotFoundError(f"There is no ticket file at {os.fspath(path)!r}.")
        try:
            return cls(*_parse(path))
        except KeyError as error:
            raise ValueError(
                f"Cannot read the ticket {os.fspath(path)!r}: its header has no {error}"
            ) from error
        except _UNREADABLE as error:
            raise ValueError(f"Cannot read the ticket {os.fspath(path)!r}: {error}") from error


def _parse(path: str | os.PathLike[str]) -> tuple[Masks, dict[Path, Array], dict[str, Any]]:
    with safetensors.safe_open(path, framework="numpy") as file:
        header = file.metadata() or {}
        if FORMAT not in header:
            raise ValueError(f"it is not a ticket: its header has no {FORMAT!r}")
        version, _, packed = header[FORMAT].partition(" ")
        if not version.isdecimal() or int(version) > VERSION:
            raise ValueError(
                f"it is of format version {version or None}, this package reads up to {VERSION}. "
                "Update keras_lottery"
            )
        about = _inflate(packed)
        parts = {name: file.get_tensor(name) for name in ("masks", "alive", "rest")}
    for name, part in parts.items():
        if zlib.crc32(part.data) != about["crc32"][name]:
            raise ValueError(f"its part {name!r} is damaged (checksum)")
    layout = {p: (_shape(s), _dtype(d)) for p, s, d in about["layout"]}
    masks = mask_ops.unpack(parts["masks"], {p: layout[p][0] for p in about["masked"]})
    values = _values(layout, masks, parts)
    return masks, values, dict(about["metadata"])


def _shape(sides: Any) -> tuple[int, ...]:
    """A shape whose size a computer could hold; the files' parts decide whether it is true."""
    if not all(type(side) is int and 0 <= side < 2**48 for side in sides):
        raise ValueError("its header tells of an impossible shape")
    if math.prod(sides) >= 2**48:
        raise ValueError("its header tells of an impossible shape")
    return tuple(sides)


def _dtype(name: Any) -> np.dtype[Any]:
    if name not in _DTYPES:
        raise ValueError(f"its header tells of an unknown dtype {name!r}")
    dtype: np.dtype[Any] = np.dtype(name)
    return dtype


def _inflate(text: str) -> dict[str, Any]:
    inflater = zlib.decompressobj()
    raw = inflater.decompress(base64.b85decode(text), _MAX_HEADER)
    if inflater.unconsumed_tail or not inflater.eof:
        raise ValueError("its header is damaged")
    about = json.loads(raw)
    return dict(about)


def _values(
    layout: dict[Path, tuple[tuple[int, ...], np.dtype[Any]]],
    masks: Masks,
    parts: dict[str, Array],
) -> dict[Path, Array]:
    """The dense arrays; sizes are compared before anything is allocated."""
    rest = [p for p in layout if p not in masks]
    n_alive = {p: int(np.count_nonzero(m)) for p, m in masks.items()}
    n_rest = {p: int(np.prod(layout[p][0], dtype=np.int64)) for p in rest}
    for name, n in (("alive", n_alive), ("rest", n_rest)):
        expected = sum(count * layout[p][1].itemsize for p, count in n.items())
        if parts[name].nbytes != expected:
            raise ValueError(
                f"its part {name!r} has {parts[name].nbytes} bytes where {expected} are due"
            )
    found = dict(_cut(parts["alive"], {p: (n, layout[p][1]) for p, n in n_alive.items()}))
    for path, mask in masks.items():
        dense = np.zeros(mask.shape, layout[path][1])
        dense[mask] = found[path]
        found[path] = dense
    found |= _cut(parts["rest"], {p: (n, layout[p][1]) for p, n in n_rest.items()})
    return {p: found[p].reshape(layout[p][0]) for p in layout}


def _cut(
    part: Array, sizes: Mapping[Path, tuple[int, np.dtype[Any]]]
) -> Iterable[tuple[Path, Array]]:
    start = 0
    for path, (n, dtype) in sizes.items():
        end = start + n * dtype.itemsize
        yield path, np.frombuffer(part[start:end].tobytes(), dtype).copy()
        start = end


def match(source: Mapping[Path, Array], target: weights.Variables) -> dict[Path, Path]:
    """Ticket path to model path: by name, else (fresh models get new names) in order.

    Args:
        source: A ticket's weights.
        target: A model's weights and statistics.

    Raises:
        ValueError: If the shapes differ; names the first mismatch.

    Example:

    >>> match({"dense/bias": np.zeros(2)}, {"dense_1/bias": keras.Variable(np.zeros(2))})
    {'dense/bias': 'dense_1/bias'}
    """
    same = [p for p in source if p in target and source[p].shape == tuple(target[p].shape)]
    if len(same) == len(source) == len(target):
        return {p: p for p in source}
    return in_order(
        {p: value.shape for p, value in source.items()},
        {q: tuple(variable.shape) for q, variable in target.items()},
    )


def in_order(
    source: Mapping[Path, tuple[int, ...]], target: Mapping[Path, tuple[int, ...]]
) -> dict[Path, Path]:
    """Ticket path to model path, one by one, from the shapes of both.

    Raises:
        ValueError: If the shapes differ; names the first mismatch.

    Example:

    >>> in_order({"dense/bias": (2,)}, {"dense_1/bias": (2,)})
    {'dense/bias': 'dense_1/bias'}
    """
    for (p, shape), (q, other) in zip(source.items(), target.items(), strict=False):
        if shape != other:
            raise ValueError(
                "The ticket belongs to another architecture. First mismatch: it has "
                f"{p!r} of shape {shape}, the model has {q!r} of shape {other}."
            )
    if len(source) != len(target):
        longer, short = sorted((list(source), list(target)), key=len, reverse=True)
        raise ValueError(
            f"The ticket belongs to another architecture: it has {len(source)} variables, the "
            f"model {len(target)}. First without a partner: {longer[len(short)]!r}"
        )
    return dict(zip(source, target, strict=True))
