"""A known ticket planted into a random network: a mother whose sparsest solution is known."""

import math
from dataclasses import dataclass
from itertools import pairwise

import keras
import numpy as np
from numpy.typing import NDArray

from keras_lottery import masks as mask_ops
from keras_lottery.masks import Masks
from keras_lottery.strong.problems import Floats, Network, Problem


@dataclass(frozen=True)
class Planted:
    """A mother network and the ticket inside it.

    Attributes:
        problem: What the ticket computes.
        model: The mother: a built Keras Sequential of Dense layers, not compiled.
        masks: Dict of path to bool array for every kernel and every bias, True = planted. With
            the masks of the kernels alone the model computes the same: units of the ticket
            without a bias have a bias of 0.
        scale: Positive float: outputs of the masked model times `scale` are the problem's.
        target: The ticket before it was planted, pairs of kernel and bias.

    Example:

    >>> from keras_lottery.strong.problems import relu
    >>> planted = plant(relu(), depth=3, width=10)
    >>> int(sum(m.sum() for m in planted.kernels.values()))
    3
    """

    problem: Problem
    model: keras.Model
    masks: Masks
    scale: float
    target: Network

    @property
    def kernels(self) -> Masks:
        """The masks of the kernels, which are the prunable weights."""
        return {p: m for p, m in self.masks.items() if m.ndim == 2}

    @property
    def density(self) -> float:
        """Planted over all prunable weights (kernels), in (0, 1]."""
        return mask_ops.density(self.kernels)


def plant(problem: Problem, depth: int = 5, width: int = 100, seed: int = 0) -> Planted:
    """Draws a random ReLU network and writes a problem's sparse solution into it.

    Weights are drawn from N(0, 2 / fan_in), the biases of layer l with the standard deviation
    that is the product of sqrt(2 / fan_in) over the layers up to l. Each unit of the solution,
    its bias and weights theta, goes to the mother unit m with the smallest
    `||theta - lambda m||`, `lambda = theta.m / ||m||^2 > 0`, and is written there as
    `theta / lambda`. What reads the unit takes the factor up (ReLU is homogeneous). The
    outputs share one factor, which gives them the size that they had.

    Args:
        problem: From `kl.strong.problems`.
        depth: Integer, number of Dense layers, at least 2.
        width: Integer, units of each hidden layer, at least as many as the solution needs.
        seed: Integer.

    Returns:
        The `Planted` network.

    Raises:
        ValueError: If depth or width is out of range, or in some layer no free unit of the
            mother points to the side of a unit of the solution.

    Source: Fischer & Burkholz, Plant 'n' Seek, 2111.11153; biases: Fischer, Gadhikar &
        Burkholz, 2110.11150.

    Example:

    >>> from keras_lottery.strong.problems import circle
    >>> planted = plant(circle(), depth=4, width=50)
    >>> y = compute_masked(planted, np.array([[0.5, -0.5]]))  # r^2 = 0.5: class 1 gets 0.5 - 0.2
    >>> bool(abs(y[0, 1] - 0.3) < 0.01)
    True
    """
    target = _target(problem, depth, width)
    sizes = [problem.inputs, *[width] * (depth - 1), problem.outputs]
    mother = _draw(sizes, np.random.default_rng(seed))
    alive: list[tuple[Floats, Floats]] = []
    units, factors, scale = np.arange(problem.inputs), np.ones(problem.inputs), 1.0
    for i, ((kernel, bias), (drawn, drawn_bias)) in enumerate(zip(target, mother, strict=True)):
        wanted = np.vstack([bias, kernel * factors[:, None]])
        there = np.vstack([drawn_bias, drawn[units]])
        if i < depth - 1:
            chosen, factors = _match(wanted, there, i)
        else:
            chosen = np.arange(problem.outputs)
            scale = _ratio(wanted, there)
            factors = np.full(problem.outputs, scale)
        support = kernel != 0
        planted = np.ix_(units, chosen)
        drawn[planted] = np.where(support, wanted[1:] / factors, drawn[planted])
        drawn_bias[chosen] = wanted[0] / factors
        alive.append((np.zeros(drawn.shape), np.zeros(drawn_bias.shape)))
        alive[-1][0][planted], alive[-1][1][chosen] = support, bias != 0
        units = chosen
    model = _model(mother)
    flat = [array.astype(bool) for pair in alive for array in pair]
    masks = {v.path: mask for v, mask in zip(model.weights, flat, strict=True)}
    return Planted(problem, model, masks, scale, target)


def compute_masked(planted: Planted, x: Floats) -> Floats:
    """The problem's outputs as the planted ticket computes them, kernels and biases masked.

    Args:
        planted: From `plant`.
        x: `(n, inputs)` array.

    Returns:
        `(n, outputs)` array, already multiplied by the scale.

    Example:

    >>> from keras_lottery.strong.problems import relu
    >>> compute_masked(plant(relu(), width=20), np.array([[-1.0], [0.5]])).round(5).tolist()
    [[0.0], [0.5]]
    """
    ticket = keras.models.clone_model(planted.model)
    pairs = zip(planted.model.get_weights(), planted.masks.values(), strict=True)
    ticket.set_weights([np.where(mask, weight, 0) for weight, mask in pairs])
    outputs = ticket(np.asarray(x, np.float32), training=False)
    return np.asarray(keras.ops.convert_to_numpy(outputs), np.float64) * planted.scale


def _target(problem: Problem, depth: int, width: int) -> Network:
    """The problem's network, after depth and width were checked."""
    if depth < problem.least_depth:
        raise ValueError(
            f"The solution of {problem.name!r} has at least {problem.least_depth} layers. "
            f"Received: depth={depth}"
        )
    target = problem.network(depth)
    needed = max(kernel.shape[1] for kernel, _ in target[:-1])
    if width < needed:
        raise ValueError(
            f"The solution of {problem.name!r} has a layer of {needed} units. Received: "
            f"width={width}. Take a wider mother, or fewer knots."
        )
    return target


def _draw(sizes: list[int], rng: np.random.Generator) -> Network:
    """He's normal kernels, and biases that shrink with the layers as one path's signal does."""
    drawn, spread = [], 1.0
    for fan_in, units in pairwise(sizes):
        spread *= math.sqrt(2 / fan_in)
        kernel = rng.normal(0, math.sqrt(2 / fan_in), (fan_in, units))
        drawn.append((kernel, rng.normal(0, spread, units)))
    return drawn


def _match(wanted: Floats, there: Floats, layer: int) -> tuple[NDArray[np.intp], Floats]:
    """For each column of `wanted` a free column of `there`, and lambda between the two.

    Only the bias and the rows that are not 0 in the wanted column are compared: the others are
    pruned.
    """
    chosen: list[int] = []
    factors: list[float] = []
    for theta in wanted.T:
        rows = np.union1d(0, np.flatnonzero(theta))
        products = theta[rows] @ there[rows]
        norms = np.linalg.norm(there[rows], axis=0)
        cosines = products / norms
        cosines[chosen] = -np.inf
        best = int(np.argmax(cosines))
        if cosines[best] <= 0:
            raise ValueError(
                f"Layer {layer} of the mother has {there.shape[1]} units, and no free one points "
                f"to the side of unit {len(chosen)} of the solution. Take a larger `width` or "
                "another `seed`."
            )
        chosen.append(best)
        factors.append(float(products[best] / norms[best] ** 2))
    return np.array(chosen, np.intp), np.array(factors)


def _ratio(wanted: Floats, there: Floats) -> float:
    """The factor between two layers of outputs, where the wanted one is not 0."""
    rows = wanted != 0
    return float(np.linalg.norm(wanted[rows]) / np.linalg.norm(there[rows]))


def _model(network: Network) -> keras.Model:
    """A Keras model of these kernels and biases."""
    layers = [
        keras.layers.Dense(len(bias), None if i == len(network) - 1 else "relu", name=f"dense{i}")
        for i, (_, bias) in enumerate(network)
    ]
    model = keras.Sequential([keras.Input((len(network[0][0]),)), *layers], name="mother")
    model.set_weights([array for pair in network for array in pair])
    return model
