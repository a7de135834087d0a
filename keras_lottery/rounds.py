"""What is kept of a round: its results, and what it started from. NumPy only."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_lottery import masks as mask_ops
from keras_lottery.masks import Array, Masks, Path


@dataclass(frozen=True)
class Round:
    """What came out of one round.

    Attributes:
        index: 0 for the dense round.
        density: Alive over prunable weights while it trained, in (0, 1].
        layer_density: The same by path.
        metrics: The logs of its last epoch: floats, or lists for metrics that are vectors.
        best_epoch: Index, from 0, among the epochs that the round trained, of the lowest
            `val_loss`, else `loss`; `None` without either.
        steps: Optimizer steps it trained.
        seconds: Wall time.
        trained: Share of the model's parameters that the trained network had; below 1 where
            `compact=True` left units out.

    Example:

    >>> Round(index=3, density=0.512, layer_density={"out/kernel": 0.729}).metrics
    {}
    """

    index: int
    density: float
    layer_density: dict[Path, float]
    metrics: dict[str, Any] = field(default_factory=dict)
    best_epoch: int | None = None
    steps: int = 0
    seconds: float = 0.0
    trained: float = 1.0


@dataclass
class Start:
    """Where a round started: masks as bits, and its weights if they are its own."""

    bits: Array
    shapes: dict[Path, tuple[int, ...]]
    packed: dict[Path, Array] | None = None

    @classmethod
    def of(cls, masks: Masks, values: dict[Path, Array] | None) -> "Start":
        """Packs masks and, unless `None`, all weights."""
        packed = values and {p: v[masks[p]] if p in masks else v for p, v in values.items()}
        return cls(mask_ops.pack(masks), {p: m.shape for p, m in masks.items()}, packed)

    def masks(self) -> Masks:
        """The masks it trained under."""
        return mask_ops.unpack(self.bits.astype(np.uint8), self.shapes)

    @property
    def values(self) -> dict[Path, Array] | None:
        """The weights of its own, dense again."""
        if self.packed is None:
            return None
        dense = dict(self.packed)
        for path, mask in self.masks().items():
            dense[path] = np.zeros(mask.shape, self.packed[path].dtype)
            dense[path][mask] = self.packed[path]
        return dense
