"""MultiHeadAttention: heads that nothing reads, and parts of heads that compute nothing."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_lottery.compaction.flows import Bools, Floats, Flow, Ids, Read, Shape, Solution
from keras_lottery.compaction.rules import (
    Context,
    Part,
    Shrunk,
    Site,
    needs,
    of_channels,
    positions,
    values,
)  # fmt: skip

_DENSE = ("query_dense", "key_dense", "value_dense", "output_dense")


@dataclass
class _Heads:
    """Ids of the parts of heads: (heads, key parts) and (heads, value parts)."""

    keys: Ids
    values: Ids
    value_const: Floats
    folds: dict[str, Floats]


class MultiHeadAttention:
    """Query, key, value and output projections around a softmax over positions.

    A key part whose key is constant shifts all scores of a query alike, one whose query is
    zero adds nothing: both may go. A value part that is constant passes through the
    weighted mean, since the weights sum to 1, and moves into the output's bias; unless it is
    zero this needs that no query sees all its positions masked.
    """

    options = frozenset({"value", "key"})

    def flow(self, context: Context, layer: Any, inputs: list[Flow], shape: Shape) -> Flow:
        needs(context.constants, "attention is left whole while it trains")
        needs(id(layer) not in context.shared, "it is called more than once")
        needs(len(inputs) <= 3, "its masks are not given by name")
        needs(len(shape) == 2 and all(len(x.shape) == 2 for x in inputs), "it has several axes")
        config = layer.get_config()
        needs(not config.get("use_gate"), "it has a gate")
        dense = [getattr(layer, name) for name in _DENSE]
        needs(not any(getattr(d, "lora_enabled", False) for d in dense), "it has LoRA weights")
        query, value, key = (*inputs, inputs[1])[:3]
        heads, parts, _ = layer.output_dense.kernel.shape
        keys = context.channels.fresh(heads * layer.key_dim).reshape(heads, -1)
        parts_ids = context.channels.fresh(heads * parts).reshape(heads, parts)
        flows = {"query_dense": query, "key_dense": key, "value_dense": value}
        folds = {name: x.column_const for name, x in flows.items()}
        asked, told, given = (self._constants(context, layer, n, folds[n]) for n in flows)
        if context.masked or config.get("sliding_window"):
            given = np.where(given == 0, given, np.nan)
        read = self._reader(context, layer)
        read("query_dense", query.columns, keys.ravel(), folds["query_dense"])
        read("key_dense", key.columns, keys.ravel(), folds["key_dense"])
        read("value_dense", value.columns, parts_ids.ravel(), folds["value_dense"])
        same_head = np.repeat(np.eye(heads, dtype=bool), layer.key_dim, axis=0)
        useful = (asked != 0) & np.isnan(told)
        uses = np.repeat(same_head & useful.reshape(-1, 1), parts, axis=1)
        nothing = np.zeros(heads * layer.key_dim, bool)
        context.channels.reads.append(Read(keys.reshape(1, -1), parts_ids.ravel(), uses, nothing))
        out = context.units(layer, shape[-1] or 1)
        read("output_dense", parts_ids.reshape(1, -1), out, given.ravel())
        const = self._output(context, layer, given)
        inner = _Heads(keys, parts_ids, given, folds)
        return context.remember(
            layer, Site(self, inputs, of_channels(out, const, shape), inner=inner)
        )

    def _reader(self, context: Context, layer: Any) -> Any:
        def read(name: str, inputs: Ids, outputs: Ids, folds: Floats) -> None:
            alive = context.alive(getattr(layer, name).kernel)
            uses = alive.reshape(inputs.shape[-1], outputs.size)
            context.channels.reads.append(Read(inputs, outputs, uses, ~np.isnan(folds)))

        return read

    def _constants(self, context: Context, layer: Any, name: str, const: Floats) -> Floats:
        """(heads, parts): what a projection gives for every input, NaN if it depends on it."""
        dense = getattr(layer, name)
        alive, known = context.alive(dense.kernel), ~np.isnan(const)
        varies = alive[~known].any(0)
        fixed = np.tensordot(np.where(known, const, 0.0), values(dense.kernel), 1)
        return np.where(varies, np.nan, fixed + _bias(dense))

    def _output(self, context: Context, layer: Any, given: Floats) -> Floats:
        alive, known = context.alive(layer.output_dense.kernel), ~np.isnan(given)
        varies = (alive & ~known[..., None]).any((0, 1))
        fixed = np.tensordot(np.where(known, given, 0.0), values(layer.output_dense.kernel), 2)
        return np.where(varies, np.nan, fixed + _bias(layer.output_dense))

    def shrink(self, layer: Any, site: Site, solution: Solution) -> Shrunk:
        inner: _Heads = site.inner
        needed_values = solution.is_needed(inner.values.ravel()).reshape(inner.values.shape)
        needed_keys = solution.is_needed(inner.keys.ravel()).reshape(inner.keys.shape)
        heads = np.flatnonzero(needed_values.any(1))
        heads = heads if len(heads) else np.zeros(1, int)
        key, key_used = _padded(needed_keys[heads])
        part, part_used = _padded(needed_values[heads])
        outs = solution.kept(site.output.columns[0])
        made = solution.is_needed(site.output.columns[0])[outs]
        query, value, third = (*site.inputs, site.inputs[1])[:3]
        scale = float(np.sqrt(key.shape[1] / layer.key_dim))
        cuts = {
            "query_dense": _project(layer.query_dense, query, solution, heads, key, key_used),
            "key_dense": _project(layer.key_dense, third, solution, heads, key, key_used),
            "value_dense": _project(layer.value_dense, value, solution, heads, part, part_used),
        }
        index = positions(layer.output_dense.kernel)[heads[:, None], part][..., outs]
        cuts["output_dense"] = np.where(part_used[..., None] & made, index, -1)
        adds = self._adds(layer, site, solution)
        picks: dict[str, tuple[tuple[Ids, ...], Bools]] = {
            "query_dense": ((heads[:, None], key), key_used),
            "key_dense": ((heads[:, None], key), key_used),
            "value_dense": ((heads[:, None], part), part_used),
            "output_dense": ((outs,), made),
        }
        bias = bool(layer.use_bias or any(a.any() for a in adds.values()))
        parts = []
        for name in _DENSE:
            dense, factor = getattr(layer, name), scale if name == "query_dense" else 1.0
            parts.append(Part(f"{name}.kernel", dense.kernel, cuts[name], factor))
            if bias:
                parts.append(_bias_part(name, dense, *picks[name], adds[name], factor))
        config = {
            "num_heads": len(heads),
            "key_dim": key.shape[1],
            "value_dim": part.shape[1],
            "output_shape": (len(outs),),
            "use_bias": bias,
        }
        return Shrunk(config, parts)

    def _adds(self, layer: Any, site: Site, solution: Solution) -> dict[str, Floats]:
        """What the constants that are taken out add to each projection's bias."""
        inner: _Heads = site.inner
        query, value, key = (*site.inputs, site.inputs[1])[:3]
        adds = {}
        flows = {"query_dense": query, "key_dense": key, "value_dense": value}
        for name, x in flows.items():
            gone = _gone(inner.folds[name], solution.is_needed(x.columns[0]))
            adds[name] = np.tensordot(gone, values(getattr(layer, name).kernel), 1)
        needed = solution.is_needed(inner.values.ravel()).reshape(inner.values.shape)
        gone = _gone(inner.value_const, needed)
        adds["output_dense"] = np.tensordot(gone, values(layer.output_dense.kernel), 2)
        return adds


def _gone(const: Floats, needed: Bools) -> Floats:
    """Constants of what is taken out, 0 elsewhere."""
    return np.where(needed | np.isnan(const), 0.0, const)


def _bias_part(
    name: str, dense: Any, chosen: tuple[Ids, ...], used: Bools, add: Floats, factor: float
) -> Part:
    """What is left of a projection's bias, with what moves into it."""
    old = dense.bias
    there = np.arange(add.size).reshape(add.shape)[chosen]
    source = np.where(used & (old is not None), there, -1)
    return Part(f"{name}.bias", old, source, factor, np.where(used, add[chosen], 0.0) * factor)


def _bias(dense: Any) -> Any:
    return 0.0 if dense.bias is None else values(dense.bias)


def _padded(needed: Bools) -> tuple[Ids, Bools]:
    """Per head, the needed parts, filled up to the same number with unused ones."""
    width = max(1, int(needed.sum(1).max()))
    order = np.argsort(~needed, axis=1, kind="stable")[:, :width]
    return order, np.take_along_axis(needed, order, axis=1)


def _project(dense: Any, x: Flow, solution: Solution, heads: Ids, parts: Ids, used: Bools) -> Ids:
    """Positions of a projection's kernel (channels, heads, parts) that stay."""
    ids = x.columns[0]
    rows = solution.kept(ids)
    index = positions(dense.kernel)[rows][:, heads[:, None], parts]
    return np.where(solution.is_needed(ids)[rows][:, None, None] & used, index, -1)
