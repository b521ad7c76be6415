"""The channel map: which channels are cut together, and what a plan leaves of a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor, nn

from prunebench.channels.labels.tape import Place, Tape, owner
from prunebench.channels.plan import Plan
from prunebench.channels.weight_norm import WeightNorm
from prunebench.errors import PruningError

Ids = NDArray[np.int64]
#: for each class of a network, whether it stays; bool [classes]
Kept = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Site:
    """One parameter dimension that holds channels of a group.

    Attributes:
        name: full name of the parameter.
        dim: the dimension of the parameter.
        classes: int64 [size of that dimension]; the group's class at each position, or -1
            where the position belongs to another group (concatenation). Behind a flatten a class
            appears once per pixel.
        normed: under weight norm, how the layer's weight is computed from the parameter.
    """

    name: str
    dim: int
    classes: Tensor
    normed: WeightNorm | None = None

    @property
    def module(self) -> str:
        """Qualified name of the layer that owns the parameter."""
        return owner(self.name)

    @property
    def parameter(self) -> str:
        """Name of the parameter within that layer."""
        return self.name[len(self.module) :].removeprefix(".")

    @property
    def positions(self) -> Tensor:
        """Positions that belong to the group, int64 and ascending."""
        return (self.classes >= 0).nonzero()[:, 0]

    def weight(self, network: nn.Module) -> Tensor:
        """Returns what the layer computes with: the parameter, or what weight norm makes of it."""
        own = network.get_parameter(self.name)
        if self.normed is None:
            return own
        return self.normed.weight(own, network.get_parameter(self.normed.lengths))

    def add_to(self, total: Tensor, values: Tensor) -> None:
        """Adds `values` [positions] to `total` [group.size], each to the entry of its class.

        Positions of other groups are skipped.
        """
        classes = self.classes
        if len(classes) and int(classes.min()) < 0:
            at = self.positions
            classes, values = classes[at], values[at.to(values.device)]
        total.index_add_(0, classes.to(total.device), values)


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channel classes that come from the same producers.

    Attributes:
        name: qualified name of the first producer in forward order (``:1``, ``:2`` follow where
            several groups share it). It stays the same when the network is slimmed.
        size: number of classes; they are numbered by first position in the first producer.
        producers: convolutions and linear layers whose output channels the classes are.
        norms: per-channel weights (or running means) of norms on the way.
        depthwise: convolutions that pass channels on.
        consumers: convolutions and linear layers that read the classes.
        residual: whether several producers are added up (a residual stream) or otherwise tied; a
            squeeze-and-excitation gate on the way does not count.
        activation: the output of the first activation (else of the last norm, or the producer).
        block: the same, behind a max pool where one follows.
        consumer: the input of the first convolution or linear layer that reads the classes.
    """

    name: str
    size: int
    producers: tuple[Site, ...]
    norms: tuple[Site, ...]
    depthwise: tuple[Site, ...]
    consumers: tuple[Site, ...]
    residual: bool
    activation: Place | None = field(repr=False, default=None)
    block: Place | None = field(repr=False, default=None)
    consumer: Place | None = field(repr=False, default=None)


@dataclass(frozen=True, eq=False)
class ChannelMap:
    """All groups of a network, and what is frozen and why.

    Attributes:
        groups: in forward order.
        frozen: module name -> reason, for every layer with weights whose output channels cannot be
            cut: convolutions, linear and recurrent ones, and those whose operation is unknown.
        dims: (parameter or buffer, dimension) -> class number of each index [size].
        class_of: class number of each label id of the tape.
        locate: [2, classes]; group number and class within the group, both -1 where frozen.
        shapes: shape of every parameter and buffer.
        parameters: names of the parameters (a shared one once).
        tape: the notes of the labelled forward.
    """

    groups: list[ChannelGroup]
    frozen: dict[str, str]
    dims: Mapping[tuple[str, int], Ids] = field(repr=False)
    class_of: Ids = field(repr=False)
    locate: Ids = field(repr=False)
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)
    parameters: tuple[str, ...] = field(repr=False)
    tape: Tape = field(repr=False)

    def group(self, name: str) -> ChannelGroup:
        """Returns the group called `name`.

        Raises:
            KeyError: there is none.
        """
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, ChannelGroup]:
        return {group.name: group for group in self.groups}

    def check(self, plan: Plan) -> None:
        """Raises unless `plan` fits this network.

        Raises:
            PruningError: a group is unknown, or an index is out of range.
        """
        for name, indices in plan.kept.items():
            group = self._by_name.get(name)
            if group is None:
                raise PruningError(
                    f"plan: no group '{name}' in this network; "
                    f"groups: {', '.join(self._by_name) or 'none'}"
                )
            if indices[-1] >= group.size:
                raise PruningError(
                    f"plan: group '{name}' has {group.size} channels (0 to {group.size - 1}), "
                    f"but channel {indices[-1]} is to be kept"
                )

    def classes(self, ids: Tensor) -> Ids:
        """Returns the class numbers of label ids, flattened."""
        return self.class_of[as_array(ids)]

    def keeps(self, plan: Plan) -> Kept:
        """Returns for each class of the network whether it stays under `plan`; bool [classes]."""
        kept = np.ones(self.locate.shape[1], dtype=bool)
        for number, group in enumerate(self.groups):
            if group.name in plan.kept:
                stays = np.zeros(group.size, dtype=bool)
                stays[list(plan.kept[group.name])] = True
                kept[self._classes[number]] = stays
        return kept

    @cached_property
    def _classes(self) -> list[Ids]:
        """Class numbers of each group, in the group's own order."""
        groups, local = self.locate
        order = np.lexsort((local, groups))
        order = order[groups[order] >= 0]
        ends = np.cumsum([group.size for group in self.groups])
        return list(np.split(order, ends[:-1]))

    @cached_property
    def _counter(self) -> tuple[csr_array, dict[tuple[str, int], int]]:
        """A matrix [parameter dimensions, classes], and its row of each (parameter, dimension).

        Multiplied by the kept classes (1 or 0) it counts what stays of each dimension.
        """
        keys = list(self.dims)
        sizes = [len(self.dims[key]) for key in keys]
        rows = np.repeat(np.arange(len(keys)), sizes)
        columns = np.concatenate([self.dims[key] for key in keys] or [np.empty(0, np.int64)])
        shape = (len(keys), self.locate.shape[1])
        matrix = csr_array((np.ones(len(rows), dtype=np.int64), (rows, columns)), shape=shape)
        return matrix, {key: row for row, key in enumerate(keys)}

    @cached_property
    def _products(self) -> tuple[tuple[Ids, Ids, Ids], tuple[Ids, Ids, Ids]]:
        """(constant, row, row) for the size of each parameter and the MACs of each weight's use.

        Either is the constant times what stays of the dimensions in those rows of `_counter`.
        """
        _, at = self._counter
        one = len(at)  # a row that always counts 1
        params, uses = [], []
        for name in self.parameters:
            shape = self.shapes[name]
            reads = [at[name, d] for d in range(len(shape)) if (name, d) in at]
            rest = [size for d, size in enumerate(shape) if (name, d) not in at]
            reads = [*reads, one, one][:2]
            params.append((int(np.prod(rest, dtype=np.int64)), *reads))
        for call in self.tape.calls:
            if call.macs:
                constant, reads = call.macs, []
                for d in (0, 1):
                    if (call.weight, d) in at:
                        reads.append(at[call.weight, d])
                    else:
                        constant *= self.shapes[call.weight][d]
                uses.append((constant, *[*reads, one, one][:2]))
        return _columns(params), _columns(uses)

    @cached_property
    def _spread_macs(self) -> Ids:
        """MACs that each class costs by itself, as under a linear layer that mixes positions."""
        costs = np.zeros(self.locate.shape[1], dtype=np.int64)
        for macs, ids in self.tape.spread_macs:
            np.add.at(costs, self.classes(ids), macs)
        return costs

    def _count(self, plan: Plan, products: tuple[Ids, Ids, Ids]) -> int:
        """Returns the sum of `products`, one of the two of `_products`, under `plan`."""
        self.check(plan)
        matrix, _ = self._counter
        counts = np.append(matrix @ self.keeps(plan).astype(np.int64), 1)
        constant, first, second = products
        return int((constant * counts[first] * counts[second]).sum())

    def macs(self, plan: Plan) -> int:
        """Returns the multiply-adds (conv, linear, matmul; one image) of the slimmed network.

        Raises:
            PruningError: the plan does not fit this network.
        """
        spread = int(self._spread_macs[self.keeps(plan)].sum())
        _, uses = self._products
        return self._count(plan, uses) + spread + self.tape.fixed_macs

    def params(self, plan: Plan) -> int:
        """Returns the number of parameters of the slimmed network.

        Raises:
            PruningError: the plan does not fit this network.
        """
        params, _ = self._products
        return self._count(plan, params)


def _columns(rows: list[Any]) -> tuple[Ids, Ids, Ids]:
    """Returns the three columns of a list of triples."""
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]


def as_array(ids: Tensor) -> Ids:
    """Returns label ids as a NumPy array."""
    array: Ids = ids.numpy().reshape(-1)
    return array
