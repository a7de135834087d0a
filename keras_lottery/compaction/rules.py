"""What a rule about a kind of layer says, and what rules share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np

from keras_lottery.compaction.flows import (
    Bools,
    Channels,
    Floats,
    Flow,
    Ids,
    Shape,
    Solution,
    per_channel,
)  # fmt: skip


class Part(NamedTuple):
    """Where the weights of a smaller layer come from.

    Attributes:
        attribute: Of the new layer: `"kernel"`, `"query_dense.bias"`.
        old: The variable it is cut from, or `None`: zeros.
        source: Flat positions in `old`, shaped like the new variable; -1 for a zero.
        scale, add: The new value is `old[source] * scale + add`.
    """

    attribute: str
    old: keras.Variable | None
    source: Ids
    scale: float = 1.0
    add: Any = 0.0


class Shrunk(NamedTuple):
    """A smaller layer: what changes in its config, and its weights."""

    config: dict[str, Any]
    parts: list[Part]


@dataclass
class Site:
    """A layer as its first call met it.

    Attributes:
        rule: The rule that understood it.
        inputs, output: Flows of that call.
        folds: (channels in,) constants that may move into its bias, NaN elsewhere; of rules
            that read channels.
        inner: What else the rule must remember.
    """

    rule: "Rule"
    inputs: list[Flow]
    output: Flow
    folds: Floats = field(default_factory=lambda: np.zeros(0))
    inner: Any = None


@dataclass
class Context:
    """A model under analysis.

    Attributes:
        alive: Variable -> bool array, which of its weights count.
        constants: Whether values may be used: if not, only what nothing reads may go.
        shared: Ids of layers that are called more than once.
        masked: Whether positions may be masked, perhaps all that an attention looks at.
        sites: Layer id to its site.
        left: Layer name to the reason why it is not understood.
        entries: Id of a nested model to the flows that first went into it.
        rigid: Ids of layers and nested models that stay as they are, at all their calls.
    """

    alive: Callable[[keras.Variable], Bools]
    constants: bool
    shared: frozenset[int]
    masked: bool = False
    channels: Channels = field(default_factory=Channels)
    sites: dict[int, Site] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    entries: dict[int, list[Flow]] = field(default_factory=dict)
    rigid: set[int] = field(default_factory=set)

    def units(self, layer: Any, n: int) -> Ids:
        """The ids that a layer computes; the same at every call."""
        site = self.sites.get(id(layer))
        if site is not None:
            return self.channels.merge_positions(site.output)
        ids = self.channels.fresh(n)
        self.channels.units.append(ids)
        return ids

    def remember(self, layer: Any, site: Site) -> Flow:
        """Notes the layer's site; inputs of the calls that share weights go together."""
        first = self.sites.setdefault(id(layer), site)
        if first is not site and getattr(layer, "weights", None):
            for a, b in zip(first.inputs, site.inputs, strict=True):
                self.channels.tie(a, b)
        return site.output

    def unknown(self, n: int) -> Floats:
        """Constants of `n` channels of which nothing is known."""
        return np.full(n, np.nan)


class Rule(Protocol):
    """How one kind of layer passes channels on, and how it gets smaller.

    Attributes:
        options: Arguments besides tensors that a call may have.
    """

    options: frozenset[str]

    def flow(self, context: Context, layer: Any, inputs: list[Flow], shape: Shape) -> Flow:
        """The output's flow; notes in the context what the layer reads."""

    def shrink(self, layer: Any, site: Site, solution: Solution) -> Shrunk:
        """The smaller layer's config and weights."""


class NotUnderstoodError(Exception):
    """A rule met a setting that it does not cover; the layer stays as it is."""


def positions(variable: keras.Variable) -> Ids:
    """Flat positions, shaped like the variable."""
    shape = tuple(variable.shape)
    return np.arange(int(np.prod(shape))).reshape(shape)


def values(variable: keras.Variable) -> Floats:
    """The variable in float64."""
    return np.asarray(variable.numpy()).astype(np.float64)


def needs(condition: bool, why: str) -> None:
    """Raises `NotUnderstoodError` unless the condition holds."""
    if not condition:
        raise NotUnderstoodError(why)


def of_channels(ids: Ids, const: Floats, shape: Shape) -> Flow:
    """A flow whose channels are the same at all positions."""
    return Flow(shape, per_channel(ids, len(shape)), per_channel(const, len(shape)))


ELEMENTWISE = (
    "linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "sigmoid",
    "hard_sigmoid", "log_sigmoid", "silu", "hard_silu", "tanh", "hard_tanh", "tanh_shrink",
    "softplus", "softsign", "soft_shrink", "hard_shrink", "squareplus", "sparse_plus",
    "exponential", "mish", "threshold",
)  # fmt: skip


def is_elementwise(function: Any) -> bool:
    """Whether an activation computes each channel from itself alone."""
    if type(function) is keras.layers.Activation:
        return is_elementwise(function.activation)
    if type(function) in (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU):
        return True
    known = [getattr(keras.activations, name, None) for name in ELEMENTWISE]
    return any(function is one for one in known if one is not None)


def apply(function: Callable[..., Any], const: Floats) -> Floats:
    """An elementwise function of constants; unknown ones stay unknown."""
    known = ~np.isnan(const)
    if not known.any():
        return const
    inputs = keras.ops.convert_to_tensor(np.where(known, const, 0.0).astype("float32"))
    outputs = keras.ops.convert_to_numpy(function(inputs)).astype(np.float64)
    return np.where(known & np.isfinite(outputs), outputs, np.nan)
