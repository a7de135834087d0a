"""Which layers LiteRT's sparse XNNPACK kernels will run.

XNNPACK runs a part of a network on sparse kernels: from a 3x3 convolution of stride 2 on
the three channels of the image, through 1x1 convolutions, depthwise convolutions and
elementwise layers only, to a global average pooling. In it the kernels of 1x1 convolutions
may be sparse; at two thirds of zeros and more they run faster. These are the rules of
tfmot's `PruneForLatencyOnXNNPack`, for Keras 3. They look at the layers only: what a
processor gains has to be measured.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import layers as L
from rich.console import Console
from rich.table import Table

from keras_lottery import weights
from keras_lottery.compaction.tracing import Graph, is_graph, trace
from keras_lottery.masks import Path

_MERGES = (L.Add, L.Subtract, L.Multiply)
_ELEMENTWISE = (*_MERGES, L.ZeroPadding2D, L.ReLU, L.LeakyReLU, L.ELU, L.Dropout)
_OPERATIONS = {"Add", "Subtract", "Multiply", "Identity"}
_ACTIVATIONS = {"linear", "relu", "relu6", "leaky_relu", "elu", "sigmoid"}


@dataclass(frozen=True)
class Row:
    """What is known of one prunable weight.

    Attributes:
        layer: Name of the layer that holds it.
        path: Its path.
        qualifies: Whether a sparse kernel will run it.
        why_not: What is in the way; empty if it qualifies.
    """

    layer: str
    path: Path
    qualifies: bool
    why_not: str


class Report(list[Row]):
    """A list of `Row`s, in the model's order, that prints as a table."""

    def __str__(self) -> str:
        table = Table("layer", "weight", "sparse kernel", "why not", box=None, pad_edge=False)
        for row in self:
            table.add_row(row.layer, row.path, "yes" if row.qualifies else "no", row.why_not)
        text = io.StringIO()
        Console(file=text, width=10_000, markup=False, emoji=False).print(table, highlight=False)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


@dataclass(eq=False)
class _Node:
    """A call of a layer, with the calls before and after it; nested models are taken apart."""

    layer: Any
    before: list["_Node"] = field(default_factory=list)
    after: list["_Node"] = field(default_factory=list)


def report(model: keras.Model) -> Report:
    """Tells of each prunable weight whether a sparse kernel will run it, or why not.

    Unlike tfmot's policy, a 1x1 convolution outside of the part from the first convolution to
    the pooling does not qualify: XNNPACK runs it dense.

    Args:
        model: A built Keras model.

    Returns:
        A list of `Row`s, one for each weight that is prunable by default.

    Raises:
        ValueError: If the model is not built or has no prunable weight.

    Source: Elsen et al., 1911.09723.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), L.Dense(2, name="head")])
    >>> [row] = report(model)
    >>> row.layer, row.qualifies, row.why_not
    ('head', False, 'Dense: sparse kernels run 1x1 Conv2D only')
    """
    variables = weights.prunable(model)
    holders = weights.owners(model)
    found, why = _sparse_part(model)
    rows = Report()
    for path, variable in variables.items():
        held = holders.get(id(variable)) or [model]
        reason = next(filter(None, (_kernel(layer) for layer in held)), "") or why
        if not reason and not all(any(n.layer is layer for n in found) for layer in held):
            reason = "it lies outside of the part from the first convolution to the pooling"
        rows.append(Row(held[0].name, path, not reason, reason))
    return rows


def filters(model: keras.Model) -> Callable[[Path, keras.Variable], bool]:
    """Chooses the weights that sparse XNNPACK kernels will run, for `filters=`.

    Args:
        model: The built Keras model to be pruned.

    Returns:
        A callable `(path, variable) -> bool`.

    Raises:
        ValueError: If nothing qualifies; with the report's reasons.

    Source: Elsen et al., 1911.09723.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     L.ZeroPadding2D(1),
    ...     L.Conv2D(4, 3, strides=2, name="first"),
    ...     L.Conv2D(8, 1, name="pointwise"),
    ...     L.GlobalAveragePooling2D(),
    ... ])
    >>> choose = filters(model)
    >>> [v.path for v in model.trainable_variables if choose(v.path, v)]  # doctest: +ELLIPSIS
    ['...pointwise/kernel']
    """
    rows = report(model)
    qualified = {row.path for row in rows if row.qualifies}
    if not qualified:
        raise ValueError(
            f"LiteRT's sparse kernels will run no layer of the model {model.name!r}:\n{rows}"
        )
    return lambda path, variable: path in qualified


def _kernel(layer: Any) -> str:
    """Why the layer's own kind is in the way."""
    if not isinstance(layer, L.Conv2D):
        return f"{type(layer).__name__}: sparse kernels run 1x1 Conv2D only"
    if layer.kernel_size != (1, 1):
        return f"its kernel is {layer.kernel_size[0]}x{layer.kernel_size[1]}, not 1x1"
    return ""


# The graph -------------------------------------------------------------------------------


def _nodes(model: keras.Model) -> tuple[list[_Node], list[_Node]]:
    """The calls that read the model's inputs, and those that give its outputs."""
    source = _Node(None)
    graph = trace(model)
    made = dict.fromkeys(graph.inputs, source)
    _connect(graph, made)
    return source.after, [made[key] for key in graph.outputs]


def _connect(graph: Graph, made: dict[int, _Node]) -> None:
    """Adds a graph's calls to `made`, a dict of tensor key to the call that gives it."""
    for call in graph.calls:
        inner = graph.nested.get(id(call.layer))
        if inner is not None:
            inside = dict(zip(inner.inputs, (made[key] for key in call.inputs), strict=True))
            _connect(inner, inside)
            made.update(zip(call.outputs, (inside[key] for key in inner.outputs), strict=True))
            continue
        node = _Node(call.layer, [made[key] for key in call.inputs])
        for before in node.before:
            before.after.append(node)
        made.update(dict.fromkeys(call.outputs, node))


def _first(
    begin: Iterable[_Node],
    stop: Callable[[_Node], bool],
    then: Callable[[_Node], Sequence[_Node]],
) -> list[_Node]:
    """The first nodes on all ways from `begin` that `stop`; none if a way ends without one."""
    waiting, found = list(begin), []
    seen = {id(node) for node in waiting}
    while waiting:
        node = waiting.pop()
        following = () if stop(node) else then(node)
        if stop(node):
            found.append(node)
        elif not following:
            return []
        waiting += [n for n in following if id(n) not in seen]
        seen |= {id(n) for n in following}
    return found


def _sparse_part(model: keras.Model) -> tuple[list[_Node], str]:
    """The calls between the first convolutions and the poolings, or why there are none."""
    if not is_graph(model):
        return [], "the graph of a subclassed model cannot be seen: make it functional"
    readers, givers = _nodes(model)
    starts = _first(readers, _is_start, lambda n: n.after)
    if not starts:
        return [], (
            "not every input leads to a ZeroPadding2D(1) and a Conv2D 3x3 with strides 2, "
            'padding="valid" and 3 input channels'
        )
    ends = _first(givers, _is_end, lambda n: [b for b in n.before if b.layer is not None])
    if not ends:
        return [], "not every output comes from a GlobalAveragePooling2D"
    part, waiting = [], list(starts)
    while waiting:
        node = waiting.pop()
        if node in part or node in ends:
            continue
        why = _activated(node.layer) if node in starts else _unsupported(node)
        if why:
            return [], why
        part.append(node)
        waiting += node.after
    return part, ""


def _is_start(node: _Node) -> bool:
    layer = node.layer
    return (
        isinstance(layer, L.Conv2D)
        and tuple(layer.kernel.shape[:3]) == (3, 3, 3)
        and layer.strides == (2, 2)
        and layer.padding == "valid"
        and _padded_by(node) == 1
    )


def _is_end(node: _Node) -> bool:
    return isinstance(node.layer, L.GlobalAveragePooling2D)


def _padded_by(node: _Node) -> int | None:
    """By how much a ZeroPadding2D, alone before the call, pads all four sides."""
    layer = node.before[0].layer if len(node.before) == 1 else None
    if not isinstance(layer, L.ZeroPadding2D):
        return None
    sides = {side for sides in layer.padding for side in sides}
    return sides.pop() if len(sides) == 1 else None


def _unsupported(node: _Node) -> str:
    """Why a call between the first convolution and the pooling is in the way."""
    layer, kind = node.layer, type(node.layer).__name__
    name = f"the layer {layer.name!r} ({kind}) lies between the first convolution and the pooling"
    if not isinstance(layer, L.Layer):
        known = {*_OPERATIONS, *(a.replace("_", "") for a in _ACTIVATIONS)}
        return "" if {kind, kind.lower()} & known else f"{name}: not supported"
    if isinstance(layer, L.DepthwiseConv2D):
        rule = "a depthwise convolution is 3x3 or 5x5, of one multiplier, undilated, of stride 1, "
        rule += 'padded "same" or by a ZeroPadding2D of half its size (then also of stride 2)'
        return _activated(layer) if _depthwise(node) else f"{name}: {rule}"
    if isinstance(layer, L.Conv2D):
        plain = (layer.groups, layer.dilation_rate, layer.kernel_size, layer.strides)
        rule = "a convolution is 1x1, of stride 1, undilated, of one group"
        return _activated(layer) if plain == (1, (1, 1), (1, 1), (1, 1)) else f"{name}: {rule}"
    for kind_of, (rule, fits) in _RULES.items():
        if isinstance(layer, kind_of):
            return "" if fits(layer) else f"{name}: {rule}"
    return "" if isinstance(layer, _ELEMENTWISE) else f"{name}: not supported"


_ACTIVATED = f"its activation is one of {sorted(_ACTIVATIONS)}"
_RULES: dict[type, tuple[str, Callable[[Any], bool]]] = {
    L.GlobalAveragePooling2D: ("a pooling on the way keeps its dimensions", lambda x: x.keepdims),
    L.BatchNormalization: ("it normalizes the last axis", lambda x: x.axis in (-1, 3)),
    L.UpSampling2D: ('its interpolation is "bilinear"', lambda x: x.interpolation == "bilinear"),
    L.Activation: (_ACTIVATED, lambda x: _runs(x.activation)),
}


def _activated(layer: Any) -> str:
    """Why a convolution's own activation is in the way."""
    name = f"the layer {layer.name!r} ({type(layer).__name__})"
    return "" if _runs(layer.activation) else f"{name}: {_ACTIVATED}"


def _runs(activation: Any) -> bool:
    """Whether sparse kernels run it: a function, or a layer in its place."""
    if isinstance(activation, L.Layer):
        return not _unsupported(_Node(activation))
    return getattr(activation, "__name__", "") in _ACTIVATIONS


def _depthwise(node: _Node) -> bool:
    layer = node.layer
    if layer.depth_multiplier != 1 or tuple(layer.dilation_rate) != (1, 1):
        return False
    if layer.kernel_size not in ((3, 3), (5, 5)) or layer.strides not in ((1, 1), (2, 2)):
        return False
    if layer.padding == "same":
        return bool(layer.strides == (1, 1))
    return bool(_padded_by(node) == layer.kernel_size[0] // 2)
