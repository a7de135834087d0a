"""Widths that theorems promise, and what is measured beside them.

The theorems give orders of growth: their constants are arguments here, 1 by default, so that the
figures compare growth and not size.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from keras_lottery.strong.meeting import MOST
from keras_lottery.strong.subset_sum import subset_sum

_BLOCK = 1 << 20


def log_width(
    inputs: int,
    outputs: int,
    tolerance: float,
    layers: int = 1,
    failure: float = 1.0,
    constant: float = 1.0,
) -> float:
    """Hidden units that suffice for one target layer when sums are used.

    `constant * inputs * log(inputs * outputs * layers / min(tolerance, failure))`, for a
    network error of `tolerance` with probability 1 - `failure`.

    Args:
        inputs: Of the target's layer, 1 or more.
        outputs: Of the target's layer, 1 or more.
        tolerance: Of the network's outputs, in (0, 1].
        layers: Depth of the target.
        failure: In (0, 1].
        constant: The theorem's C; positive.

    Source: Pensia et al., 2006.07990, theorem 1.

    Example:

    >>> round(log_width(784, 500, tolerance=0.01, layers=2))
    14251
    """
    _check_range(tolerance=tolerance, failure=failure)
    return constant * inputs * math.log(inputs * outputs * layers / min(tolerance, failure))


def polynomial_width(width: int, tolerance: float, layers: int = 1, constant: float = 1.0) -> float:
    """Hidden units of the older bound, which uses no sums: one pair of weights for each weight.

    `constant * width^5 * layers^2 / tolerance^2`: wider than the target by a factor of the
    order width^4 layers^2, times the draws that a pair takes.

    Args:
        width: Of the target, 1 or more.
        tolerance: Of the network's outputs, in (0, 1].
        layers: Depth of the target.
        constant: Positive.

    Source: Malach et al., 2002.00585, as Pensia et al., 2006.07990, state it.

    Example:

    >>> polynomial_width(10, tolerance=0.5)
    400000.0
    """
    _check_range(tolerance=tolerance)
    return constant * width**5 * layers**2 / tolerance**2


def fewest_parameters(width: int, tolerance: float, constant: float = 1.0) -> float:
    """Parameters that any random network needs to hold all linear maps of norm 1 or less.

    `constant * width^2 * log(1 / tolerance)`, for the maps of `width` numbers to `width`,
    with probability 1/2.

    Args:
        width: 1 or more.
        tolerance: Of the outputs, in (0, 1].
        constant: Positive.

    Source: Pensia et al., 2006.07990, theorem 2.

    Example:

    >>> round(fewest_parameters(100, tolerance=0.01))
    46052
    """
    _check_range(tolerance=tolerance)
    return constant * width**2 * math.log(1 / tolerance)


def candidates_needed(
    tolerance: float, trials: int = 200, seed: int = 0, share: float = 0.95
) -> int:
    """Measured: how many candidates bring a share of random numbers within tolerance.

    Each trial draws one target and candidates from U[-1, 1), and adds
    candidates until a subset of them is within tolerance.

    Args:
        tolerance: In (0, 1].
        trials: Positive integer.
        seed: Integer.
        share: Of the trials, in (0, 1].

    Returns:
        The smallest number that suffices for `share` of the trials.

    Raises:
        ValueError: If an argument is out of range, or 40 candidates do not suffice.

    Source: Lueker, "Exponentially small bounds on the expected optimum of the partition and
        subset sum problems", 1998: the number grows like log(1 / tolerance).

    Example:

    >>> candidates_needed(0.1, trials=50) < candidates_needed(0.001, trials=50) <= 20
    True
    """
    _check_range(tolerance=tolerance, share=share)
    rng = np.random.default_rng(seed)
    targets = rng.uniform(-1, 1, trials)
    candidates = rng.uniform(-1, 1, (trials, MOST))
    left = np.arange(trials)
    for n in range(1, MOST + 1):
        found = subset_sum(targets[left], candidates[left, :n], tolerance)
        left = left[found.missing[:, 0]]
        if trials - left.size >= share * trials:
            return n
    raise ValueError(
        f"Expected that {MOST} candidates suffice. Received: tolerance={tolerance}, which "
        f"{left.size} of {trials} targets miss."
    )


def draws_needed(
    tolerance: float, trials: int = 200, seed: int = 0, share: float = 0.95, pairs: bool = True
) -> int:
    """Measured: how many draws a weight takes when nothing is added up.

    Each trial draws a target w from U[-1, 1) and then weights (a, b) from U[-1, 1) until
    |a - w| <= tolerance and |b - 1| <= tolerance, as the proof asks (about 1 / tolerance^2
    draws), or until |a b - w| <= tolerance (about 1 / tolerance).

    Args:
        tolerance: In (0, 1]. For pairs the work grows with its inverse square: 0.01 takes some
            ten million draws for 200 trials.
        trials: Positive integer.
        seed: Integer.
        share: Of the trials, in (0, 1].
        pairs: True for the proof's condition, False for the product's.

    Returns:
        The smallest number that suffices for `share` of the trials.

    Raises:
        ValueError: If an argument is out of range.

    Source: Malach et al., 2002.00585.

    Example:

    >>> draws_needed(0.2, trials=50) < draws_needed(0.05, trials=50)
    True
    """
    _check_range(tolerance=tolerance, share=share)
    rng = np.random.default_rng(seed)
    near = _pair_is_near if pairs else _product_is_near
    counts = [_draws(rng, rng.uniform(-1, 1), tolerance, near) for _ in range(trials)]
    return int(np.sort(counts)[math.ceil(share * trials) - 1])


Near = Callable[[NDArray[np.float64], float, float], NDArray[np.bool_]]


def _draws(rng: np.random.Generator, target: float, tolerance: float, near: Near) -> int:
    drawn, step = 0, 1 << 10
    while True:
        hits = np.flatnonzero(near(rng.uniform(-1, 1, (2, step)), target, tolerance))
        if hits.size:
            return drawn + int(hits[0]) + 1
        drawn, step = drawn + step, min(2 * step, _BLOCK)


def _pair_is_near(
    weights: NDArray[np.float64], target: float, tolerance: float
) -> NDArray[np.bool_]:
    a, b = weights
    return np.asarray((np.abs(a - target) <= tolerance) & (np.abs(b - 1) <= tolerance))


def _product_is_near(
    weights: NDArray[np.float64], target: float, tolerance: float
) -> NDArray[np.bool_]:
    return np.asarray(np.abs(weights[0] * weights[1] - target) <= tolerance)


def _check_range(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value <= 1:
            raise ValueError(f"`{name}` must be in (0, 1]. Received: {value}")
