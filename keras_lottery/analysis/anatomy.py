"""What a ticket looks like inside: layer by layer, what is alive and what for."""

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_lottery import weights
from keras_lottery.analysis.connectivity import connections
from keras_lottery.analysis.counting import Uses, uses
from keras_lottery.analysis.effective import effective_masks, fitted
from keras_lottery.analysis.ramanujan import Ramanujan, ramanujan
from keras_lottery.compaction.tracing import is_graph
from keras_lottery.enforcement import Enforcement
from keras_lottery.masks import Masks, Path
from keras_lottery.tickets import Ticket

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class LayerAnatomy:
    """One masked weight.

    Attributes:
        path: Its path.
        shape: Its shape.
        alive: Alive weights.
        total: All weights.
        density: `alive / total`, in [0, 1].
        effective: Weights on a path from input to output; `None` if the model's graph cannot
            be seen.
        incoming: (units,) alive weights into each output unit.
        outgoing: (units of the input,) alive weights out of each input unit.
        dead_units: Output units none of whose weights is on a path; where `effective` is
            `None`, those none of whose weights is alive.
        units: Output units.
        ramanujan: Its Ramanujan property; `None` if it was not asked for.
        macs: Multiply-adds of one example; `None` where the kind of layer or a size is unknown.
        macs_alive: The same with the alive weights only.
    """

    path: Path
    shape: tuple[int, ...]
    alive: int
    total: int
    density: float
    effective: int | None
    incoming: Counts
    outgoing: Counts
    dead_units: int
    units: int
    ramanujan: Ramanujan | None
    macs: int | None
    macs_alive: int | None


@dataclass(frozen=True)
class Anatomy:
    """All masked weights of a model.

    Attributes:
        layers: List of `LayerAnatomy`, in the model's order.
        other_parameters: Trainable weights that have no mask.
        other_macs: Multiply-adds of one example with weights that have no mask.
        unknown: Paths of weights whose multiply-adds are not known; `flops` leaves them out.
    """

    layers: list[LayerAnatomy]
    other_parameters: int = 0
    other_macs: int = 0
    unknown: list[Path] = field(default_factory=list)

    @property
    def density(self) -> float:
        """Alive over all masked weights, in [0, 1]."""
        return sum(x.alive for x in self.layers) / max(1, sum(x.total for x in self.layers))

    @property
    def effective_density(self) -> float | None:
        """Weights on a path from input to output over all masked weights, in [0, 1]."""
        counts = [x.effective for x in self.layers if x.effective is not None]
        if len(counts) < len(self.layers):
            return None
        return sum(counts) / max(1, sum(x.total for x in self.layers))

    @property
    def collapsed(self) -> list[Path]:
        """Layers without a weight on a path; where that is not known, without an alive one."""
        return [
            x.path for x in self.layers if not (x.alive if x.effective is None else x.effective)
        ]

    @property
    def parameters(self) -> int:
        """All trainable weights of the model, biases included."""
        return self.other_parameters + sum(x.total for x in self.layers)

    @property
    def parameters_alive(self) -> int:
        """The same without the pruned ones."""
        return self.other_parameters + sum(x.alive for x in self.layers)

    @property
    def flops(self) -> int | None:
        """Operations of one example, a multiply and an add for each weight and place it is used.

        Biases, activations, normalizations and products of two activations (the scores of an
        attention) are not counted; nor are the weights in `unknown`. `None` if no masked
        weight's are known, as in a subclassed model.
        """
        return self._operations([x.macs for x in self.layers])

    @property
    def flops_alive(self) -> int | None:
        """The same on the alive weights only."""
        return self._operations([x.macs_alive for x in self.layers])

    def _operations(self, macs: list[int | None]) -> int | None:
        known = [n for n in macs if n is not None]
        return None if macs and not known else 2 * (self.other_macs + sum(known))


def anatomy(
    model: keras.Model,
    masks: Masks | Ticket | Enforcement | None = None,
    with_ramanujan: bool = True,
) -> Anatomy:
    """Takes a sparse model apart: density, paths, connections and cost, layer by layer.

    Of a subclassed model, whose graph cannot be seen, `effective`, `macs` and `flops` are
    `None`; all else is there.

    Args:
        model: Any built Keras model; not changed.
        masks: Dict of path to bool array, True = alive; or a ticket, or what `kl.prune`
            returns. Default: the enforced masks, else where the prunable weights are not 0.
        with_ramanujan: Whether to compute the Ramanujan property: a singular value
            decomposition of every layer, which takes long for thousands of units.

    Returns:
        An `Anatomy`; its arrays are NumPy.

    Raises:
        ValueError: If the model is not built, or the masks do not fit it or are not of bools.
        TypeError: If the model is no Keras model.

    Source: `effective_masks` and `ramanujan` name theirs.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> masks = {model.layers[0].kernel.path: np.array([[1, 1, 0], [1, 0, 0]], bool)}
    >>> found = anatomy(model, masks)
    >>> found.density, found.parameters_alive, found.flops_alive
    (0.5, 6, 6)
    >>> found.layers[0].incoming.tolist(), found.layers[0].dead_units
    ([2, 1, 0], 1)
    """
    masks = fitted(model, masks)
    effective = effective_masks(model, masks) if is_graph(model) else None
    variables, held_by, times = weights.all_variables(model), weights.owners(model), uses(model)
    layers = []
    for path, mask in masks.items():
        variable = variables[path]
        owner = next(iter(held_by.get(id(variable), [])), None)
        own = None if effective is None else effective[path]
        count = times.get(id(variable))
        layers.append(_layer(path, mask, own, owner, variable.name, count, with_ramanujan))
    return Anatomy(layers, *_others(model, masks, times))


def _layer(
    path: Path,
    mask: NDArray[np.bool_],
    effective: NDArray[np.bool_] | None,
    owner: Any,
    name: str,
    times: int | None,
    with_ramanujan: bool,
) -> LayerAnatomy:
    alive = int(np.count_nonzero(mask))
    graph = connections(mask, owner, name)
    paths = graph if effective is None else connections(effective, owner, name)
    units = graph.shape[-1]
    return LayerAnatomy(
        path=path,
        shape=mask.shape,
        alive=alive,
        total=mask.size,
        density=alive / max(1, mask.size),
        effective=None if effective is None else int(np.count_nonzero(effective)),
        incoming=graph.sum((0, 1)),
        outgoing=graph.sum((0, 2)),
        dead_units=units - int(np.count_nonzero(paths.any((0, 1)))),
        units=units,
        ramanujan=ramanujan(graph) if with_ramanujan else None,
        macs=None if times is None else times * mask.size,
        macs_alive=None if times is None else times * alive,
    )


def _others(model: keras.Model, masks: Masks, times: Uses) -> tuple[int, int, list[Path]]:
    """Of the weights without a mask: their number, their multiply-adds; what is not known."""
    trainable = {id(v) for v in model.trainable_variables}
    held = weights.all_variables(model)
    others = {p: v for p, v in held.items() if p not in masks}
    sizes = {p: int(np.prod(tuple(v.shape))) for p, v in others.items()}
    parameters = sum(sizes[p] for p, v in others.items() if id(v) in trainable)
    macs = sum((times.get(id(v)) or 0) * sizes[p] for p, v in others.items())
    unknown = [p for p, v in held.items() if _is_unknown(v, p in masks, times)]
    return parameters, macs, unknown


def _is_unknown(variable: keras.Variable, masked: bool, times: Uses) -> bool:
    if id(variable) in times:
        return times[id(variable)] is None
    return masked or (len(variable.shape) >= 2 and variable.name != "bias")
