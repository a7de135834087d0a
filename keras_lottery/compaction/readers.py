"""Layers that compute new channels from those they read: Dense, convolutions, Embedding."""

from typing import Any

import numpy as np

from keras_lottery.compaction.flows import Bools, Floats, Flow, Groups, Ids, Read, Shape, Solution
from keras_lottery.compaction.rules import (
    Context,
    Part,
    Shrunk,
    Site,
    apply,
    is_elementwise,
    needs,
    of_channels,
    positions,
    values,
)  # fmt: skip


def _over_space(array: Any) -> Any:
    """Sums, or whether any is true of bools, over all axes but the last two."""
    space = tuple(range(array.ndim - 2))
    return array.sum(space, dtype=bool if array.dtype == bool else float) if space else array


class Dense:
    """Channels out are sums over channels in, by the kernel's last two axes."""

    options: frozenset[str] = frozenset()
    size = "units"

    def check(self, layer: Any) -> None:
        """Settings that this rule does not cover."""
        needs(not getattr(layer, "lora_enabled", False), "it has LoRA weights")
        needs(getattr(layer, "quantization_mode", None) is None, "it is quantized")
        needs(not getattr(layer.activation, "weights", None), "its activation has weights")

    def groups(self, layer: Any) -> int:
        """Groups of channels that do not see each other."""
        return int(getattr(layer, "groups", 1))

    def kernels(self, layer: Any) -> list[str]:
        """Names of the weights that read."""
        return ["kernel"]

    def joined(self, layer: Any, arrays: list[Any]) -> Any:
        """(channels in, channels out) from arrays shaped like the kernels, summed over space."""
        flat = _over_space(arrays[0])
        n = self.groups(layer)
        if n == 1:
            return flat
        rows, columns = flat.shape[0], flat.shape[1] // n
        full = np.zeros((rows * n, columns * n), flat.dtype)
        for g in range(n):
            part = slice(g * columns, (g + 1) * columns)
            full[g * rows : (g + 1) * rows, part] = flat[:, part]
        return full

    def keeps_constants(self, layer: Any) -> bool:
        """Whether a constant input gives the same at every position, borders included."""
        return True

    def flow(self, context: Context, layer: Any, inputs: list[Flow], shape: Shape) -> Flow:
        self.check(layer)
        (x,) = inputs
        kernels = [getattr(layer, name) for name in self.kernels(layer)]
        uses: Bools = self.joined(layer, [context.alive(k) for k in kernels])
        out = context.units(layer, uses.shape[1])
        const = x.column_const
        if not self.keeps_constants(layer):
            const = np.where(const == 0, const, np.nan)
        folds = np.full_like(const, np.nan) if id(layer) in context.shared else const
        context.channels.reads.append(Read(x.columns, out, uses, ~np.isnan(folds)))
        if self.groups(layer) > 1:
            both = (context.channels.merge_positions(x), out)
            shaped = [ids.reshape(self.groups(layer), -1) for ids in both]
            context.channels.groups.append(Groups(*shaped))
        result = context.unknown(len(out))
        if not is_elementwise(layer.activation):
            context.channels.forced.append(out)
        elif context.constants:
            result = apply(layer.activation, self._constants(layer, uses, const))
        return context.remember(layer, Site(self, inputs, of_channels(out, result, shape), folds))

    def _weight(self, layer: Any, rows: Bools) -> Floats:
        """Weights from some channels in to all channels out."""
        kernels = [getattr(layer, name).numpy() for name in self.kernels(layer)]
        return np.asarray(self.joined(layer, kernels)[rows], np.float64)

    def _constants(self, layer: Any, uses: Bools, const: Floats) -> Floats:
        """Each output before the activation, where all that it reads is constant."""
        known = ~np.isnan(const)
        fixed = ~uses[~known].any(0)
        total = np.full(uses.shape[1], np.nan)
        if fixed.any():
            bias = values(layer.bias)[fixed] if layer.use_bias else 0.0
            total[fixed] = const[known] @ self._weight(layer, known)[:, fixed] + bias
        return total

    def shrink(self, layer: Any, site: Site, solution: Solution) -> Shrunk:
        ins, outs = site.inputs[0].columns[0], site.output.columns[0]
        columns, made = solution.kept(outs), solution.is_needed(outs)
        folds = np.where(solution.is_needed(ins), np.nan, site.folds)
        moved = ~np.isnan(folds) & (folds != 0)
        add = np.zeros(len(columns))
        if moved.any():
            add = np.where(made, folds[moved] @ self._weight(layer, moved), 0.0)[columns]
        config = {self.size: len(columns), "use_bias": bool(layer.use_bias or add.any())}
        parts = self.cut(layer, solution, ins, outs)
        if config["use_bias"]:
            bias = layer.bias if layer.use_bias else None
            index = np.where(made[columns] & (bias is not None), columns, -1)
            parts.append(Part("bias", bias, index, add=add))
        if self.groups(layer) > 1:
            kept = solution.kept(ins)
            config["groups"] = len(np.unique(kept // (len(ins) // self.groups(layer))))
        return Shrunk(config, parts)

    def cut(self, layer: Any, solution: Solution, ins: Ids, outs: Ids) -> list[Part]:
        """The kernels' parts."""
        rows, columns = solution.kept(ins), solution.kept(outs)
        index = self.oriented(positions(layer.kernel))
        read = solution.is_needed(ins)[rows]
        if self.groups(layer) == 1:
            cut = index[..., rows[:, None], columns]
            cut[..., ~read, :] = -1
        else:
            width, height = index.shape[-2], len(outs) // self.groups(layer)
            chosen = [
                np.where(read[own], index[..., rows[own] % width, c], -1)
                for c in columns
                for own in [rows // width == c // height]
            ]
            cut = np.stack(chosen, axis=-1)
        cut[..., ~solution.is_needed(outs)[columns]] = -1
        return [Part("kernel", layer.kernel, self.oriented(cut))]

    def oriented(self, index: Ids) -> Ids:
        """A kernel's positions with channels in and out as the last two axes; its own inverse."""
        return index


class Conv(Dense):
    """Convolutions, grouped or not."""

    size = "filters"

    def check(self, layer: Any) -> None:
        super().check(layer)
        needs(layer.data_format == "channels_last", "its channels come first")

    def keeps_constants(self, layer: Any) -> bool:
        return bool(layer.padding == "valid" or max(layer.kernel_size) == 1)


class Transposed(Conv):
    """Transposed convolutions; their kernels are (..., channels out, channels in)."""

    def joined(self, layer: Any, arrays: list[Any]) -> Any:
        return super().joined(layer, [a.swapaxes(-1, -2) for a in arrays])

    def keeps_constants(self, layer: Any) -> bool:
        return bool(max(*layer.kernel_size, *layer.strides) == 1)

    def oriented(self, index: Ids) -> Ids:
        return index.swapaxes(-1, -2)


class Separable(Conv):
    """A depthwise convolution followed by a pointwise one."""

    def kernels(self, layer: Any) -> list[str]:
        return ["depthwise_kernel", "pointwise_kernel"]

    def groups(self, layer: Any) -> int:
        return 1

    def joined(self, layer: Any, arrays: list[Any]) -> Any:
        depthwise = _over_space(arrays[0])
        pointwise = arrays[1].reshape(*depthwise.shape, -1)
        return np.einsum("im,imo->io", depthwise, pointwise)

    def cut(self, layer: Any, solution: Solution, ins: Ids, outs: Ids) -> list[Part]:
        rows, columns = solution.kept(ins), solution.kept(outs)
        m = layer.depthwise_kernel.shape[-1]
        inner = (rows[:, None] * m + np.arange(m)).ravel()
        point = positions(layer.pointwise_kernel)[..., inner, :][..., columns]
        point[..., ~np.repeat(solution.is_needed(ins)[rows], m), :] = -1
        point[..., ~solution.is_needed(outs)[columns]] = -1
        return [
            Part("depthwise_kernel", layer.depthwise_kernel,
                 positions(layer.depthwise_kernel)[..., rows, :]),
            Part("pointwise_kernel", layer.pointwise_kernel, point),
        ]  # fmt: skip


class Depthwise:
    """A convolution of each channel by itself: channels out go with channels in."""

    options: frozenset[str] = frozenset()

    def flow(self, context: Context, layer: Any, inputs: list[Flow], shape: Shape) -> Flow:
        needs(layer.data_format == "channels_last", "its channels come first")
        (x,) = inputs
        m = layer.kernel.shape[-1]
        out = np.repeat(context.channels.merge_positions(x), m)
        const = context.unknown(len(out))
        if not is_elementwise(layer.activation):
            context.channels.forced.append(out)
        elif context.constants:
            const = apply(layer.activation, self._constants(layer, x.column_const))
        return context.remember(layer, Site(self, inputs, of_channels(out, const, shape)))

    def _constants(self, layer: Any, const: Floats) -> Floats:
        kernel = values(layer.kernel)
        kernel = kernel.reshape(-1, *kernel.shape[-2:])
        uniform = layer.padding == "valid" or max(layer.kernel_size) == 1
        known = const if uniform else np.where(const == 0, const, np.nan)
        total = np.where((kernel == 0).all(0), 0.0, kernel.sum(0) * known[:, None]).ravel()
        return np.asarray(total + (values(layer.bias) if layer.use_bias else 0.0))

    def shrink(self, layer: Any, site: Site, solution: Solution) -> Shrunk:
        rows = solution.kept(site.inputs[0].columns[0])
        parts = [Part("kernel", layer.kernel, positions(layer.kernel)[..., rows, :])]
        if layer.use_bias:
            outs = solution.kept(site.output.columns[0])
            parts.append(Part("bias", layer.bias, outs))
        return Shrunk({}, parts)


class Embedding:
    """Rows of a table; only what nothing reads is taken out."""

    options: frozenset[str] = frozenset()

    def flow(self, context: Context, layer: Any, inputs: list[Flow], shape: Shape) -> Flow:
        needs(not getattr(layer, "lora_enabled", False), "it has LoRA weights")
        needs(getattr(layer, "quantization_mode", None) is None, "it is quantized")
        for x in inputs:
            context.channels.forced.append(x.ids.ravel())
        out = context.units(layer, layer.output_dim)
        const = context.unknown(len(out))
        if context.constants:
            const[(values(layer.embeddings) == 0).all(0)] = 0.0
        return context.remember(layer, Site(self, [], of_channels(out, const, shape)))

    def shrink(self, layer: Any, site: Site, solution: Solution) -> Shrunk:
        columns = solution.kept(site.output.columns[0])
        index = positions(layer.embeddings)[:, columns]
        return Shrunk({"output_dim": len(columns)}, [Part("embeddings", layer.embeddings, index)])
