"""Which channels belong together, which are constant, and which are needed. NumPy only.

Every channel of every tensor has an integer id. Channels that must be kept or removed
together share one, or are merged. A read says which output ids a layer computes from
which input ids; from what is asked of the outputs the needed ids follow backwards.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Shape = tuple[int | None, ...]


class Flow(NamedTuple):
    """What is known of a tensor.

    Attributes:
        shape: Without the batch; `None` where unknown.
        ids: Channel ids; the last axis is that of `shape`, the others too or 1.
        const: The value where it is the same for every input, else NaN; axes like `ids`.
    """

    shape: Shape
    ids: Ids
    const: Floats

    @property
    def columns(self) -> Ids:
        """Ids as (positions, channels)."""
        return self.ids.reshape(-1, self.ids.shape[-1])

    @property
    def column_const(self) -> Floats:
        """Per channel, the value if it is the same at all positions, else NaN."""
        values = self.const.reshape(-1, self.const.shape[-1])
        return np.where((values == values[0]).all(0), values[0], np.nan)


def per_channel(values: NDArray[Any], rank: int) -> NDArray[Any]:
    """One value a channel as an array of `rank` axes."""
    return values.reshape((1,) * (rank - 1) + (-1,))


class Read(NamedTuple):
    """One layer reads a tensor: `uses[i, o]` if channel i matters to channel o.

    Attributes:
        inputs: (positions, channels) ids read.
        outputs: (channels,) ids computed.
        uses: (channels in, channels out) bool.
        spares: (channels in,) bool: not needed even so, its constant moves into a bias.
    """

    inputs: Ids
    outputs: Ids
    uses: Bools
    spares: Bools


class Groups(NamedTuple):
    """Channels of a grouped convolution: kept groups must have equal numbers of channels."""

    inputs: Ids  # (groups, channels in a group)
    outputs: Ids


@dataclass
class Channels:
    """All ids of a model, what reads them, and what must stay."""

    count: int = 0
    merged: list[tuple[Ids, Ids]] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    groups: list[Groups] = field(default_factory=list)
    units: list[Ids] = field(default_factory=list)
    forced: list[Ids] = field(default_factory=list)
    present: list[Ids] = field(default_factory=list)

    def fresh(self, n: int) -> Ids:
        """New ids."""
        self.count += n
        return np.arange(self.count - n, self.count)

    def merge(self, a: Ids, b: Ids) -> None:
        """These go together from now on; shapes broadcast."""
        if a is not b:
            one, other = np.broadcast_arrays(a, b)
            self.merged.append((one.ravel(), other.ravel()))

    def tie(self, a: Flow, b: Flow) -> None:
        """Two tensors that share weights go together; position by position if they can."""
        if a.columns.shape == b.columns.shape:
            self.merge(a.columns, b.columns)
        else:
            self.merge(self.merge_positions(a), b.columns)

    def merge_positions(self, flow: Flow) -> Ids:
        """The channels' ids, after all positions of a channel were put together."""
        columns = flow.columns
        if len(columns) > 1 and (columns != columns[0]).any():
            self.merge(columns, columns[:1])
        first: Ids = columns[0]
        return first

    def solve(self) -> "Solution":
        """The ids that are needed, and those that stay all the same."""
        label = self._labels()
        needed = np.zeros(self.count, bool)
        for ids in self.forced:
            needed[label[ids]] = True
        reads = [r._replace(inputs=label[r.inputs], outputs=label[r.outputs]) for r in self.reads]
        while True:
            before = int(needed.sum())
            for read in reversed(reads):
                wanted = read.uses[:, needed[read.outputs]].any(1) & ~read.spares
                needed[read.inputs[:, wanted]] = True
            if int(needed.sum()) == before:
                return Solution(label, needed, self._stays(label, needed))

    def _labels(self) -> Ids:
        """The smallest id of those merged with each."""
        label = np.arange(self.count, dtype=np.int64)
        if not self.merged:
            return label
        a = np.concatenate([pair[0] for pair in self.merged])
        b = np.concatenate([pair[1] for pair in self.merged])
        while True:
            low = np.minimum(label[a], label[b])
            changed = label.copy()
            np.minimum.at(changed, label[a], low)
            np.minimum.at(changed, label[b], low)
            changed = changed[changed]
            if (changed == label).all():
                return label
            label = changed

    def _stays(self, label: Ids, needed: Bools) -> Bools:
        """Needed ids, and what must be there for shapes: one unit, equal groups, inputs."""
        stays = needed.copy()
        for ids in self.present:
            stays[label[ids]] = True
        while True:
            before = int(stays.sum())
            for ids in self.units:
                if not stays[label[ids]].any():
                    stays[label[ids[0]]] = True
            for group in self.groups:
                _balance(stays, label[group.inputs], label[group.outputs])
            if int(stays.sum()) == before:
                return stays


def _balance(stays: Bools, inputs: Ids, outputs: Ids) -> None:
    """Adds channels until every group that has any has as many as the fullest."""
    used = stays[inputs].any(1) | stays[outputs].any(1)
    for ids in (inputs, outputs):
        most = max(1, int(stays[ids].sum(1).max()))
        for row in ids[used]:
            spare = row[~stays[row]]
            stays[spare[: max(0, most - int(stays[row].sum()))]] = True


class Solution(NamedTuple):
    """What is left of each id.

    Attributes:
        label: The id that stands for each id's merged set.
        needed: By label, whether something reads it.
        stays: By label, whether it is there: needed, or kept for its shape only.
    """

    label: Ids
    needed: Bools
    stays: Bools

    def kept(self, ids: Ids) -> Ids:
        """Positions, among (channels,) ids, of those that stay."""
        return np.flatnonzero(self.stays[self.label[ids]])

    def is_needed(self, ids: Ids) -> Bools:
        """Whether each of the ids is needed."""
        return self.needed[self.label[ids]]
