"""A random network, pruned and never trained, that computes what a given model computes."""

from typing import Any, Literal

import keras
import numpy as np

from keras_lottery.compaction.tracing import is_graph
from keras_lottery.scopes.arguments import is_integer
from keras_lottery.strong import gadgets, layers
from keras_lottery.strong.approximation import Approximation, assemble
from keras_lottery.strong.gadgets import Draw, Gadget, Shape, Share, Structure
from keras_lottery.strong.meeting import MOST

_DISTRIBUTIONS: dict[str, Draw] = {"uniform": gadgets.uniform, "normal": gadgets.normal}
_CHOICES: dict[str, tuple[str, ...]] = {
    "structure": ("relu", "linear"),
    "share": ("none", "row", "input"),
    "on_missing": ("error", "nearest"),
}


def approximate(
    model: keras.Model,
    candidates: int = 21,
    tolerance: float = 0.01,
    distribution: Literal["uniform", "normal"] | Draw = "uniform",
    structure: Structure = "relu",
    share: Share = "none",
    seed: int = 0,
    widen: bool = False,
    on_missing: Literal["error", "nearest"] = "error",
) -> Approximation:
    """Prunes a random network of twice the depth until it computes what `model` computes.

    Each Dense or convolution becomes two random layers, the first one Dense or 1x1. Every
    input owns n = `candidates` hidden units, or 2 n under a ReLU: n with a positive and n with
    a negative edge from that input. Of the first layer only these edges stay; of the second,
    for each weight, a subset whose products with the edges add up to the weight within
    `tolerance`, under a ReLU one for x >= 0 and one for x < 0. For a bias n more hidden units
    keep nothing but their own. All that is done is pruning: alive weights are as drawn. Other
    layers are copied, a BatchNormalization with its statistics and weights.

    The layer with kernel number i, counted from 0, is drawn by `gadgets.draw` with the generator
    `numpy.random.default_rng([seed, i, attempt])`. A hidden unit of a wrong sign is thrown away
    and drawn again, until each input has n of each.

    Args:
        model: A built Sequential or functional model. It is not changed.
        candidates: n, from 1 to 40.
        tolerance: Of each weight, positive.
        distribution: `"uniform"` in [-1, 1), `"normal"` with deviation 1, or a callable
            `(rng, shape) -> array`. Weights of the second layer are multiplied by the
            largest |weight or bias| of the target's layer where that is above 1.
        structure: `"relu"` between the two layers, or `"linear"`: nothing.
        share: `"none"`: all weights are independent. `"row"`: the edges of the first layer
            are drawn for one input and repeated for all, the second layer's weights are drawn
            for one input (and position of the window) and repeated; so all weights of an output
            have the same candidates, as in the paper's code. `"input"`: the second layer's
            weights are drawn for one output (and position) and repeated, so that
            all weights of an input have the same candidates.
        seed: Integer, 0 or more.
        widen: Whether a layer with weights out of tolerance is drawn again with an eighth more
            candidates, until all are within, or 40 were not enough.
        on_missing: For weights without a subset within tolerance: `"error"`, or `"nearest"`
            to take the nearest sum that there is.

    Returns:
        An `Approximation`.

    Raises:
        ValueError: If an argument is out of range, a layer with a kernel is not of a supported
            kind, or weights are out of tolerance: how many, in which layer, and by how much.

    Source: Pensia et al., 2006.07990; for biases Fischer et al., 2110.11150.

    Example:

    >>> half = keras.initializers.Constant(0.5)
    >>> layer = keras.layers.Dense(2, "relu", kernel_initializer=half, name="out")
    >>> target = keras.Sequential([keras.Input((3,)), layer])
    >>> found = approximate(target, tolerance=0.01)
    >>> [layer.units for layer in found.model.layers[0].layers]
    [147, 2]
    >>> bool(found.errors["out"].max() <= 0.01)
    True
    """
    _check_choices(structure=structure, share=share, on_missing=on_missing)
    sample = _checked(candidates, tolerance, distribution, seed)
    if not is_graph(model) or not model.built:
        raise ValueError(
            f"Expected a built Sequential or functional model. Received: {model.name!r}, a "
            f"{type(model).__name__}{'' if model.built else ' that is not built'}."
        )
    named = layers.targets(model)
    found: dict[str, Gadget] = {}
    attempts: dict[str, int] = {}
    widths = _widths(candidates) if widen else [candidates]
    for index, (name, layer) in enumerate(named.items()):
        for attempts[name], n in enumerate(widths):
            rng = np.random.default_rng([seed, index, attempts[name]])
            found[name] = _solve(layer, n, structure, share, sample, tolerance, rng)
            if not found[name].missing:
                break
        if found[name].missing and on_missing == "error":
            raise ValueError(_out_of_reach(name, found[name], tolerance, widen))
    metadata = {
        "method": "subset sum",
        "seed": int(seed),
        "tolerance": float(tolerance),
        "distribution": distribution if isinstance(distribution, str) else "custom",
        "structure": structure,
        "share": share,
        "candidates": {name: gadget.shape.n for name, gadget in found.items()},
        "attempts": attempts,
    }
    return assemble(model, named, found, metadata)


def _check_choices(**given: str) -> None:
    for name, choice in given.items():
        if choice not in _CHOICES[name]:
            raise ValueError(f"`{name}` must be one of {_CHOICES[name]}. Received: {choice!r}")


def _checked(candidates: Any, tolerance: float, distribution: Any, seed: Any) -> Draw:
    """The function that draws, after the other arguments were looked at."""
    if not (is_integer(candidates) and 1 <= candidates <= MOST):
        raise ValueError(f"`candidates` must be an integer of 1 to {MOST}. Received: {candidates}")
    if not (np.isfinite(tolerance) and tolerance > 0):
        raise ValueError(f"`tolerance` must be positive and finite. Received: {tolerance}")
    if not (is_integer(seed) and seed >= 0):
        raise ValueError(f"`seed` must be an integer of 0 or more. Received: {seed!r}")
    if not callable(distribution) and distribution not in _DISTRIBUTIONS:
        raise ValueError(
            f"`distribution` must be one of {tuple(_DISTRIBUTIONS)} or a callable "
            f"`(rng, shape) -> array`. Received: {distribution!r}"
        )
    return distribution if callable(distribution) else _DISTRIBUTIONS[distribution]


def _widths(candidates: int) -> list[int]:
    """The numbers of candidates to try: an eighth more each time."""
    widths = [candidates]
    while widths[-1] < MOST:
        widths.append(min(MOST, widths[-1] + max(1, widths[-1] // 8)))
    return widths


def _solve(
    layer: Any,
    n: int,
    structure: Structure,
    share: Share,
    sample: Draw,
    tolerance: float,
    rng: np.random.Generator,
) -> Gadget:
    """Draws the random counterpart of one layer and finds its subsets."""
    kernel = layers.kernel_of(layer)
    bias = layer.bias.numpy().astype(np.float64) if layer.use_bias else None
    scale = max(1.0, float(np.abs(kernel).max()), *([] if bias is None else np.abs(bias).tolist()))
    taps, inputs, outputs = kernel.shape
    shape = Shape(taps, inputs, outputs, n, bias is not None, structure, share)
    drawn = gadgets.draw(shape, sample, scale, rng)
    tap = 0 if bias is None else layers.bias_tap(layer)
    return gadgets.choose(shape, drawn, kernel, bias, tap, tolerance)


def _out_of_reach(name: str, gadget: Gadget, tolerance: float, widened: bool) -> str:
    advice = "" if widened else "`widen=True`, more `candidates`, "
    return (
        f"{gadget.missing} weights of the layer {name!r} have no subset of {gadget.shape.n} "
        f"candidates within the tolerance {tolerance}; the largest error is "
        f'{gadget.largest_error:.3g}. Use {advice}a larger `tolerance`, or on_missing="nearest".'
    )
