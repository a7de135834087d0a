"""Problems whose sparse solution is known: data, and the ReLU network that computes them.

The three of Plant 'n' Seek: one path (ReLU), circles around the origin, a helix.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Network = list[tuple[Floats, Floats]]
Pieces = tuple[Floats, Floats, Floats, Floats]
RADII = (0.2, 0.5, 0.7)
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Problem:
    """A function on [-1, 1]^inputs, and a sparse ReLU network that computes it.

    Args:
        name: What tables call it.
        inputs: Number of inputs.
        outputs: Number of outputs: targets of a regression, or classes.
        classes: Whether the largest output is a class, not the outputs the targets.
        least_depth: Fewest layers that its network has.
        function: `(n, inputs)` array to `(n, outputs)` array: the exact outputs.
        network: Number of layers to that many pairs of kernel `(in, out)` and bias
            `(out,)`, float64; ReLU between layers, none after the last.

    Source: Fischer & Burkholz, Plant 'n' Seek, 2111.11153.

    Example:

    >>> x, y = relu().data(2, seed=0)
    >>> x.shape, bool((y == np.maximum(x, 0)).all())
    ((2, 1), True)
    """

    name: str
    inputs: int
    outputs: int
    classes: bool
    least_depth: int
    function: Callable[[Floats], Floats]
    network: Callable[[int], Network]

    def data(
        self, n: int, seed: int = 0, noise: float = 0.0
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | NDArray[np.int64]]:
        """Inputs drawn uniformly from [-1, 1]^inputs, and their targets.

        Args:
            n: Number of samples, at least 1.
            seed: Integer.
            noise: Of a regression, the standard deviation of normal noise on the targets;
                of classes, the probability in [0, 1] that a sample is of the second best.

        Returns:
            `x`, float32 `(n, inputs)`, and `y`: float32 `(n, outputs)` or int64 `(n,)`.

        Raises:
            ValueError: If `n` or `noise` is out of range.
        """
        if n < 1:
            raise ValueError(f"`n` must be at least 1. Received: {n}")
        if noise < 0 or (self.classes and noise > 1):
            raise ValueError(
                "`noise` must not be negative, and of classes it is a probability in [0, 1]. "
                f"Received: {noise}"
            )
        rng = np.random.default_rng(seed)
        x = rng.uniform(-1, 1, (n, self.inputs)).astype(np.float32)
        exact = self.function(x.astype(np.float64))
        if not self.classes:
            return x, (exact + rng.normal(0, noise, exact.shape)).astype(np.float32)
        ranked = np.argsort(exact, axis=1)
        return x, np.where(rng.random(n) < noise, ranked[:, -2], ranked[:, -1])


def compute(network: Network, x: Floats) -> Floats:
    """The outputs of a ReLU network of kernels and biases.

    Args:
        network: Pairs of kernel `(in, out)` and bias `(out,)`.
        x: `(n, inputs)` array.

    Example:

    >>> compute([(np.array([[1.0]]), np.zeros(1)), (np.array([[2.0]]), np.ones(1))], [[3.0]])
    array([[7.]])
    """
    for kernel, bias in network[:-1]:
        x = np.maximum(0.0, x @ kernel + bias)
    kernel, bias = network[-1]
    return np.asarray(x @ kernel + bias)


def relu() -> Problem:
    """The regression y = max(0, x); its network is one path, one weight a layer.

    Example:

    >>> len(relu().network(5))
    5
    """
    unit = (np.ones((1, 1)), np.zeros(1))
    return Problem(
        "relu", 1, 1, False, 2, lambda x: np.maximum(0.0, x), lambda depth: [unit] * depth
    )


def helix(knots: int = 30) -> Problem:
    """The regression of a helix: (t cos t, t sin t, t) / 8 pi at t = 5 pi + 3 pi x.

    Its network carries x + 1 along a path to `knots` kinks, which the three outputs share,
    so that it interpolates the helix linearly over `knots` pieces.

    Args:
        knots: Number of linear pieces on [-1, 1], at least 1.

    Example:

    >>> helix().outputs
    3
    """
    _check_knots(knots)
    return Problem("helix", 1, 3, False, 2, _helix, partial(_helix_network, knots))


def circle(knots: int = 10) -> Problem:
    """Four classes of points of the square, by r^2 = x1^2 + x2^2 at .2, .5 and .7.

    Its network folds the plane along axes through the origin (angles pi/4, pi/8, ...), so that
    the second coordinate gets short, and interpolates the two squares linearly.

    Args:
        knots: Half the number of linear pieces of both squares together, at least 1.

    Example:

    >>> circle().data(5, seed=0)[1].tolist()
    [1, 3, 3, 1, 3]
    """
    _check_knots(knots)
    return Problem("circle", 2, 4, True, 2, _levels, partial(_circle_network, knots))


def _check_knots(knots: int) -> None:
    if knots < 1:
        raise ValueError(f"`knots` must be at least 1. Received: {knots}")


def _pieces(function: Callable[[Floats], Floats], low: float, high: float, n: int) -> Pieces:
    """Interpolates linearly over n pieces by ReLUs that open to the right and left in turn.

    Returns:
        Weight and bias of each unit, its weights in the sum, and the constant of the sum.
    """
    ends = np.linspace(low, high, n + 1)
    values = function(ends[:, None])
    slopes = np.diff(values, axis=0) / np.diff(ends)[:, None]
    changes = np.diff(slopes, axis=0, prepend=0.0)
    changes[np.abs(changes) < _ROUNDING] = 0.0
    kinks, side = ends[:-1], np.where(np.arange(n) % 2, -1.0, 1.0)
    # relu(x - s) = relu(s - x) + (x - s), and the first unit is x - low.
    left = changes[side < 0]
    changes[0] += left.sum(axis=0)
    start = values[0] - (kinks[side < 0] - low) @ left
    return side, -side * kinks, changes, start


def _helix(x: Floats) -> Floats:
    t = 5 * np.pi + 3 * np.pi * x
    return np.hstack([t * np.cos(t), t * np.sin(t), t]) / (8 * np.pi)


def _helix_network(knots: int, depth: int) -> Network:
    shift = 1.0 if depth > 2 else 0.0
    pieces = _pieces(lambda u: _helix(u - shift), shift - 1, shift + 1, knots)
    side, bias, weights, start = pieces
    path = [(np.ones((1, 1)), np.full(1, shift if i == 0 else 0.0)) for i in range(depth - 2)]
    return [*path, (side[None], bias), (weights, start)]


def _levels(x: Floats) -> Floats:
    """One line of r^2 a class; the lines of two neighbours cross at the circle between them."""
    squared = np.sum(x**2, axis=1, keepdims=True)
    return np.asarray(np.arange(4) * squared - np.cumsum((0.0, *RADII)))


def _circle_network(knots: int, depth: int) -> Network:
    layers, read, lengths = _folds(depth - 2)
    low = -1.0 if depth == 2 else 0.0
    first = min(max(1, round(2 * knots * lengths[0] / sum(lengths))), 2 * knots - 1)
    counts = (first, 2 * knots - first)
    both = [_pieces(np.square, low, r, n) for r, n in zip(lengths, counts, strict=True)]
    side, bias, weights = (np.concatenate([pieces[i] for pieces in both]) for i in range(3))
    middle = (read[:, np.repeat([0, 1], counts)] * side, bias)
    slope = np.arange(4.0)
    start = slope * (both[0][3] + both[1][3]) - np.cumsum((0.0, *RADII))
    return [*layers, middle, (weights * slope, start)]


def _folds(n: int) -> tuple[Network, Floats, tuple[float, float]]:
    """n layers that make both coordinates short, and how to read them.

    Returns:
        The layers, the matrix `(units, 2)` that reads two non-negative coordinates of the same
        r^2 from their outputs, and the largest value of each.
    """
    split = np.asarray(np.kron(np.eye(2), [[1.0, -1.0]]), np.float64)
    add = np.asarray(np.kron(np.eye(2), [[1.0], [1.0]]), np.float64)
    kernels = [split, add][:n]
    read: Floats = add if n == 1 else np.eye(2)
    lengths = (1.0, 1.0)
    for i in range(n - 2):
        cos, sin = np.cos(np.pi / 2 ** (i + 2)), np.sin(np.pi / 2 ** (i + 2))
        kernels.append(read @ np.array([[cos, -sin, sin], [sin, cos, -cos]]))
        read = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        # The square's corners lie on the first axis: there the distance is |x1 - x2| / sqrt 2.
        lengths = (np.sqrt(2.0), np.sqrt(2.0) * (sin if i else 0.5))
    return [(k, np.zeros(k.shape[1])) for k in kernels], read, lengths
