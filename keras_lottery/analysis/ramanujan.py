"""Is the graph of a layer's alive weights as well connected as its number of edges allows?"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGE = 200
_LEAST_DEGREE = 3
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Ramanujan:
    """The Ramanujan property of one layer.

    Attributes:
        degree_left: Mean number of alive weights of an input unit, of those that have any.
        degree_right: The same of an output unit.
        singular_value: The second largest singular value of the 0/1 matrix.
        bound: `sqrt(degree_left - 1) + sqrt(degree_right - 1)`.
        holds: Whether the singular value is at most the bound; `None` where a mean degree is
            below 3, as the property is not defined there.
    """

    degree_left: float
    degree_right: float
    singular_value: float
    bound: float
    holds: bool | None


def ramanujan(mask: Any) -> Ramanujan:
    """Judges a mask as a bipartite graph of input units and output units.

    Units without an alive weight are left out. A convolution is unrolled: each of
    `height * width * channels in` is a unit on the left. A small second singular value
    means that signals spread over the whole layer.

    Args:
        mask: Bool array `(inputs, outputs)`, or of a higher rank, of which the last axis is
            the output's; True = alive.

    Returns:
        A `Ramanujan`. Of an empty mask all its numbers are 0.

    Raises:
        ValueError: If the mask has fewer than two axes.

    Source: Pal et al. 2022, "A Study on the Ramanujan Graph Property of Winning Lottery
        Tickets" (ICML).

    Example: all of 4 inputs are connected with all of 5 outputs.

    >>> found = ramanujan(np.ones((4, 5), bool))
    >>> found.degree_left, found.degree_right, round(found.singular_value, 6), found.holds
    (5.0, 4.0, 0.0, True)
    """
    alive = np.asarray(mask, bool)
    if alive.ndim < 2:
        raise ValueError(
            "Expected a mask of at least two axes, inputs and outputs. "
            f"Received: a mask of shape {alive.shape}."
        )
    matrix = alive.reshape(-1, alive.shape[-1])
    matrix = matrix[matrix.any(1)]
    matrix = matrix[:, matrix.any(0)]
    if not matrix.size:
        return Ramanujan(0.0, 0.0, 0.0, 0.0, None)
    edges = int(np.count_nonzero(matrix))
    left, right = edges / matrix.shape[0], edges / matrix.shape[1]
    value = _second(matrix)
    bound = float(np.sqrt(left - 1) + np.sqrt(right - 1))
    defined = min(left, right) >= _LEAST_DEGREE
    return Ramanujan(
        left, right, value, bound, bool(value <= bound + _ROUNDING) if defined else None
    )


def _second(matrix: NDArray[np.bool_]) -> float:
    """The second largest singular value, 0 if there is only one."""
    if min(matrix.shape) < 2:
        return 0.0
    values = matrix.astype(np.float64)
    if min(matrix.shape) <= _LARGE:
        return float(np.linalg.svd(values, compute_uv=False)[1])
    small = values if matrix.shape[0] <= matrix.shape[1] else values.T
    return float(np.sqrt(max(0.0, np.linalg.eigvalsh(small @ small.T)[-2])))
