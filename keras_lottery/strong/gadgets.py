"""Two random layers, pruned, in place of one trained: how they are drawn and what is kept.

A target kernel has the shape (taps, inputs, outputs): one tap for a Dense layer, one for each
position of the window of a convolution. Each input i owns a block of n hidden units, and in
the ReLU structure a second one: with input weights a > 0 in the first and a < 0 in the second,

    sum over chosen k of b_k relu(a_k x) = x * sum of a_k b_k

holds for x >= 0 in the first block and for x < 0 in the second, where the other one is silent.
So a weight needs a subset of the products a_k b_k in each. A bias is the weight of an input that
is always 1: its n units keep nothing but their own bias.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from keras_lottery.strong.subset_sum import SubsetSums, subset_sum
from keras_lottery.strong.subsets import Bools, Floats

Structure = Literal["relu", "linear"]
Share = Literal["none", "row", "input"]
Array = NDArray[Any]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]
_TRIES = 1000


@dataclass(frozen=True)
class Shape:
    """What the two layers look like.

    Attributes:
        taps: Positions of the window; 1 for Dense.
        inputs: Input channels.
        outputs: Output channels.
        n: Candidates for a weight, and for each of its two signs of x.
        bias: Whether there is one.
        structure: `"relu"` or `"linear"`: what stands between the two layers.
        share: Which random numbers are drawn once: see `approximate`.
    """

    taps: int
    inputs: int
    outputs: int
    n: int
    bias: bool
    structure: Structure
    share: Share

    @property
    def blocks(self) -> int:
        """Blocks of n units for each input: one for each sign of x under a ReLU."""
        return 2 if self.structure == "relu" else 1

    @property
    def units(self) -> int:
        """Hidden units."""
        return self.n * (self.blocks * self.inputs + self.bias)


@dataclass(frozen=True)
class Drawn:
    """The random weights of both layers, before anything is pruned.

    Attributes:
        first: Float32 array of shape (inputs, units).
        first_bias: Float32 array of shape (units,).
        second: Float32 array of shape (taps, units, outputs).
        second_bias: Float32 array of shape (outputs,).
    """

    first: Array
    first_bias: Array
    second: Array
    second_bias: Array


@dataclass(frozen=True)
class Gadget:
    """One target layer as two pruned random ones.

    Attributes:
        shape: A `Shape`.
        drawn: The untouched random weights.
        masks: The same four arrays as bools, True = alive.
        errors: Float64 array of shape (blocks, taps, inputs, outputs): how far each weight is
            off; for x >= 0 and for x < 0 if there are two blocks.
        bias_errors: Float64 array of shape (outputs,).
        missing: How many weights and biases have no subset within tolerance.
    """

    shape: Shape
    drawn: Drawn
    masks: Drawn
    errors: Floats
    bias_errors: Floats
    missing: int

    @property
    def kept(self) -> float:
        """Alive weights of the second layer for each weight and bias of the target."""
        return float(self.masks.second.sum() / _targets(self.shape))

    @property
    def largest_error(self) -> float:
        """Of all weights and biases."""
        return float(max(self.errors.max(), self.bias_errors.max(initial=0.0)))


def _targets(s: Shape) -> int:
    return s.outputs * (s.taps * s.inputs + s.bias)


def uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """U[-1, 1), float32."""
    return 2 * rng.random(shape, np.float32) - 1


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """N(0, 1), float32."""
    return rng.standard_normal(shape, np.float32)


def draw(s: Shape, sample: Draw, scale: float, rng: np.random.Generator) -> Drawn:
    """The random weights of both layers.

    All are drawn independently. Then hidden units whose own edge has not the sign of their
    block are drawn again until it has; and what is shared is repeated.

    Args:
        s: A `Shape`.
        sample: `(rng, shape) -> array`.
        scale: Positive float; the second layer's weights are multiplied by it.
        rng: A NumPy generator.

    Raises:
        ValueError: If the distribution gives another shape, or never one of the signs.

    Example:

    >>> s = Shape(1, 2, 3, 5, True, "relu", "none")
    >>> drawn = draw(s, uniform, 1.0, np.random.default_rng(0))
    >>> drawn.first.shape, drawn.second.shape
    ((2, 25), (1, 25, 3))
    """
    first = _sample(sample, rng, (s.inputs, s.units))
    first_bias = _sample(sample, rng, (s.units,))
    second = _sample(sample, rng, (s.taps, s.units, s.outputs)) * np.float32(scale)
    second_bias = _sample(sample, rng, (s.outputs,)) * np.float32(scale)
    unit, owner = np.arange(s.units - s.n * s.bias), _owners(s)
    edges = first[owner, unit]
    if s.structure == "relu":
        signs = np.repeat(np.array([1, -1], np.float32), s.inputs * s.n)
        edges = _with_signs(edges, signs, sample, rng)
        tail = first_bias[len(unit) :]
        first_bias[len(unit) :] = _with_signs(tail, np.ones_like(tail), sample, rng)
    blocks = (s.blocks, s.inputs, s.n)
    if s.share == "row":
        edges = np.broadcast_to(edges.reshape(blocks)[:, :1], blocks).ravel()
    first[owner, unit] = edges
    _share(s, second[:, : len(unit)])
    return Drawn(first, first_bias, second, second_bias)


def _owners(s: Shape) -> NDArray[np.intp]:
    """The input of each hidden unit, the bias units left out."""
    return np.tile(np.repeat(np.arange(s.inputs), s.n), s.blocks)


def _sample(sample: Draw, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    values = np.asarray(sample(rng, shape), np.float32)
    if values.shape != shape or not np.isfinite(values).all():
        raise ValueError(
            f"Expected `distribution(rng, shape)` to give finite numbers of shape {shape}. "
            f"Received: shape {values.shape}, {np.count_nonzero(~np.isfinite(values))} NaN or Inf."
        )
    return values.copy()


def _with_signs(edges: Array, signs: Array, sample: Draw, rng: np.random.Generator) -> Array:
    """`edges`, those of another sign drawn again until theirs fits."""
    edges = edges.copy()
    for _ in range(_TRIES):
        wrong = np.flatnonzero(edges * signs <= 0)
        if not wrong.size:
            return edges
        edges[wrong] = _sample(sample, rng, (wrong.size,))
    raise ValueError(
        "The ReLU structure needs random numbers of both signs. Received: a `distribution` that "
        f"gave none of the right sign in {_TRIES} draws."
    )


def _share(s: Shape, second: Array) -> None:
    """Repeats, in place, what is drawn once; `second` is without the bias units."""
    blocks = second.reshape(s.taps, s.blocks, s.inputs, s.n, s.outputs)
    if s.share == "row":
        blocks = np.broadcast_to(blocks[:1, :, :1], blocks.shape)
    if s.share == "input":
        blocks = np.broadcast_to(blocks[:1, ..., :1], blocks.shape)
    second[...] = blocks.reshape(second.shape)


def choose(
    s: Shape, drawn: Drawn, kernel: Array, bias: Array | None, bias_tap: int, tolerance: float
) -> Gadget:
    """Finds the subsets for all weights of one layer.

    Args:
        s: A `Shape`.
        drawn: The random weights.
        kernel: The target's, shape (taps, inputs, outputs).
        bias: The target's, shape (outputs,), or `None`.
        bias_tap: The position of the window through which the bias comes.
        tolerance: For each weight and bias.

    Example:

    >>> s = Shape(1, 1, 1, 12, False, "linear", "none")
    >>> drawn = draw(s, uniform, 1.0, np.random.default_rng(0))
    >>> choose(s, drawn, np.full((1, 1, 1), 0.3), None, 0, 0.01).missing
    0
    """
    found = [_subsets(s, drawn, kernel, tolerance, block) for block in range(s.blocks)]
    second = np.zeros(drawn.second.shape, bool)
    weights = s.n * s.blocks * s.inputs
    chosen = np.stack([f.chosen for f in found]).transpose(1, 0, 2, 4, 3)
    second[:, :weights] = chosen.reshape(s.taps, weights, s.outputs)
    bias_errors, missing = np.zeros(0), sum(len(f.missing) for f in found)
    if bias is not None:
        candidates = drawn.first_bias[weights:].astype(np.float64)[:, None]
        of_bias = subset_sum(bias, (candidates * drawn.second[bias_tap, weights:]).T, tolerance)
        second[bias_tap, weights:] = of_bias.chosen.T
        bias_errors, missing = of_bias.errors, missing + len(of_bias.missing)
    masks = _masks(s, drawn, second)
    return Gadget(s, drawn, masks, np.stack([f.errors for f in found]), bias_errors, missing)


def _subsets(s: Shape, drawn: Drawn, kernel: Array, tolerance: float, block: int) -> SubsetSums:
    """The subsets of one block: candidates are the products of both layers' weights."""
    size = s.inputs * s.n
    units = slice(block * size, (block + 1) * size)
    edges = drawn.first[_owners(s)[units], np.arange(units.start, units.stop)]
    second = drawn.second[:, units].reshape(s.taps, s.inputs, s.n, s.outputs)
    edges = edges.reshape(s.inputs, s.n, 1).astype(np.float64)
    if s.share == "row":
        edges, second = edges[:1], second[:1, :1]
    if s.share == "input":
        second = second[:1, ..., :1]
    return subset_sum(kernel, np.swapaxes(edges * second, 2, 3), tolerance)


def _masks(s: Shape, drawn: Drawn, second: Bools) -> Drawn:
    """The masks of all four arrays; a unit that nothing reads loses its edge as well."""
    weights = s.n * s.blocks * s.inputs
    read = np.asarray(second.any(axis=(0, 2)))
    first = np.zeros(drawn.first.shape, bool)
    first[_owners(s), np.arange(weights)] = read[:weights]
    first_bias = np.concatenate([np.zeros(weights, bool), read[weights:]])
    return Drawn(first, first_bias, second, np.zeros(drawn.second_bias.shape, bool))
