"""Builds the channel map of a network from the tape of its labelled forward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import nn

from prunebench.channels.labels.tape import FROM, Call, Tape, owner
from prunebench.channels.map import ChannelMap, Ids, as_array
from prunebench.channels.members import named_modules, named_parameters, named_tensors
from prunebench.channels.sites import Sites

TIED = "tied to channels that cannot be cut"


def build_map(
    model: nn.Module, tape: Tape, frozen_groups: Mapping[str, str] | None = None
) -> ChannelMap:
    """Returns the channel map of `model`, whose labelled forward is on `tape`.

    Args:
        model: the network.
        tape: the notes of its labelled forward.
        frozen_groups: group name -> why the group must stay whole.
    """
    class_of = _components(tape)
    dims = _classes_read(tape, class_of)
    reasons = _frozen_classes(tape, class_of)
    _free_parameters(tape, class_of, dims, reasons)
    for weight, norm in tape.normed.items():
        if (weight, norm.dim) in dims:
            dims[norm.lengths, norm.dim] = dims[weight, norm.dim]
    producers = _Producers(tape, class_of)
    groups, locate = producers.groups(reasons, frozen_groups or {})
    shapes = {name: tuple(t.shape) for name, t in named_tensors(model)}
    frozen = dict(tape.refused)
    for call in producers.calls:
        found = class_of[as_array(call.outputs)]
        if (locate[0, found] < 0).all():
            frozen.setdefault(call.module, reasons.get(int(found[0]), TIED))
    frozen |= _weight_sharers(model, frozen)
    sites = Sites(tape, dims, locate, len(groups))
    described = [sites.describe(number, *group) for number, group in enumerate(groups)]
    return ChannelMap(
        groups=described,
        frozen=frozen,
        dims=dims,
        class_of=class_of,
        locate=locate,
        shapes=shapes,
        # not by class: a copied TorchScript module holds its parameters as plain tensors
        parameters=tuple(name for name, _ in named_parameters(model)),
        tape=tape,
    )


def _weight_sharers(model: nn.Module, frozen: Mapping[str, str]) -> dict[str, str]:
    """Returns module -> reason for modules that share the weight of one in `frozen`."""
    owners: dict[int, str] = {}
    shared: dict[str, str] = {}
    for name, module in named_modules(model):
        for key, parameter in module._parameters.items():
            owner = owners.setdefault(id(parameter), name)
            if key == "weight" and parameter is not None and owner != name:
                shared[name] = owner
    return {
        name: f"it shares the weight of {owner}"
        for name, owner in shared.items()
        if owner in frozen and name not in frozen
    }


def _classes_read(tape: Tape, class_of: Ids) -> dict[tuple[str, int], Ids]:
    """Returns the class of each index of every (parameter, dimension) that a layer reads.

    Entries that share a tensor of label ids share one array of classes.
    """
    found: dict[int, Ids] = {}
    dims = {}
    for key, ids in tape.reads.items():
        if not key[0].endswith(FROM):
            if id(ids) not in found:
                found[id(ids)] = class_of[as_array(ids)]
            dims[key] = found[id(ids)]
    return dims


def _components(tape: Tape) -> Ids:
    """Returns the class number of every label id: ids that are tied, however far, share one."""
    ties = [*tape.ties, *_data_ties(tape)]
    if not ties:
        return np.arange(tape.count)
    ids = torch.cat([pair[0] for pair in ties]).numpy()
    partners = torch.cat([pair[1] for pair in ties]).numpy()
    differ = ids != partners
    ids, partners = ids[differ], partners[differ]
    edges = (np.ones(len(ids), np.int8), (ids, partners))
    graph = coo_array(edges, shape=(tape.count, tape.count))
    _, class_of = connected_components(graph, directed=False)
    return np.asarray(class_of, dtype=np.int64)


def _two_uses(tape: Tape) -> dict[str, dict[int, torch.Tensor]]:
    """Returns name -> dimension -> label ids of weights that the code also uses as data."""
    found: dict[str, dict[int, torch.Tensor]] = {}
    for (name, dim), ids in tape.reads.items():
        if name in tape.data:
            found.setdefault(name, {})[dim] = ids
    return found


def _data_ties(tape: Tape) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Ties the elements of such weights to channels, where a layer reads one dimension only."""
    ties = []
    for name, dims in _two_uses(tape).items():
        if name in tape.free and len(dims) == 1:
            [(dim, ids)] = dims.items()
            elements = tape.free[name].movedim(dim, -1)
            ties.append((elements.reshape(-1), ids.expand_as(elements).reshape(-1)))
    return ties


def _frozen_classes(tape: Tape, class_of: Ids) -> dict[int, str]:
    """Returns class number -> why it is frozen.

    A weight that is used as data, too, stays whole if its layer reads it along two dimensions or
    its elements have no labels (see `FREE_LIMIT`).
    """
    reasons: dict[int, str] = {}
    whole = []
    for name, dims in _two_uses(tape).items():
        if name not in tape.free or len(dims) > 1:
            reason = f"the weight of {owner(name)} is used as data, too"
            elements = [tape.free[name]] if name in tape.free else []
            whole += [(ids, reason) for ids in [*dims.values(), *elements]]
    for ids, reason in reversed([*whole, *tape.frozen]):  # the first reason stays
        reasons |= dict.fromkeys(class_of[as_array(ids)].tolist(), reason)
    reasons[int(class_of[0])] = TIED
    return reasons


def _free_parameters(
    tape: Tape, class_of: Ids, dims: dict[tuple[str, int], Ids], reasons: dict[int, str]
) -> None:
    """Adds to `dims` the dimension along which each directly used parameter follows channels.

    Where there is none, the classes of its elements are added to `reasons`.
    """
    for name, labels in tape.free.items():
        classes = class_of[labels.numpy()]
        for dim, size in enumerate(classes.shape):
            rows = np.moveaxis(classes, dim, 0).reshape(size, -1)
            if size > 1 and (rows == rows[:, :1]).all():
                dims[name, dim] = rows[:, 0]
                break
        else:
            for number in np.unique(classes).tolist():
                reasons.setdefault(number, f"tied to {name} in an irregular way")


def _by_key(members: Ids, keys: Ids) -> list[Ids]:
    """Returns `members` split by key, in order of first appearance."""
    # equal keys mostly lie side by side, so whole runs are moved
    found: dict[int, list[Ids]] = {}
    for run in np.split(np.arange(len(keys)), np.flatnonzero(keys[1:] != keys[:-1]) + 1):
        if len(run):
            found.setdefault(int(keys[run[0]]), []).append(members[run])
    return [np.concatenate(runs) for runs in found.values()]


class _Producers:
    """Sorts classes into groups: those with the same set of producers form one."""

    def __init__(self, tape: Tape, class_of: Ids) -> None:
        """Collects the producers in forward order."""
        first: dict[str, Call] = {}
        for call in tape.calls:
            if call.kind in ("conv", "linear"):
                first.setdefault(call.weight, call)
        self.calls = list(first.values())
        self.classes = int(class_of.max()) + 1
        self.outputs = [class_of[as_array(call.outputs)] for call in self.calls]
        gates = np.zeros(tape.count, dtype=bool)
        for ids in tape.gates:
            gates[as_array(ids)] = True
        self.gate = [bool(gates[as_array(call.outputs)].all()) for call in self.calls]

    def groups(
        self, reasons: dict[int, str], whole: Mapping[str, str]
    ) -> tuple[list[tuple[str, int, bool]], Ids]:
        """Returns (name, size, residual) of each group, and the place of each class.

        The places are int64 [2, classes]: group number and position in it, -1 where frozen.

        Args:
            reasons: class -> why it is frozen; those of groups in `whole` are added.
            whole: group name -> why the group must stay whole.
        """
        free = np.ones(self.classes, dtype=bool)
        free[np.fromiter(reasons, dtype=np.int64, count=len(reasons))] = False
        locate = np.full((2, self.classes), -1, dtype=np.int64)
        groups: list[tuple[str, int, bool]] = []
        for name, members, residual in self._named(self._sets(free)):
            if name in whole:
                reasons |= dict.fromkeys(members.tolist(), whole[name])
                continue
            locate[0, members] = len(groups)
            locate[1, members] = np.arange(len(members))
            groups.append((name, len(members), residual))
        return groups, locate

    def _sets(self, free: NDArray[np.bool_]) -> list[Ids]:
        """Returns the free classes of each set of producers, by first producer and position."""
        # the sum of one random number per producer identifies a set of producers; the numbers
        # come from a generator of our own
        marks = np.random.default_rng(0).integers(1, 2**62, size=len(self.calls))
        keys = np.zeros(self.classes, dtype=np.int64)
        first = np.full(self.classes, -1, dtype=np.int64)
        position, position_here = np.zeros((2, self.classes), dtype=np.int64)
        for number, found in enumerate(self.outputs):
            # written back to front, so that the first position of a class stays
            position_here[found[::-1]] = np.arange(len(found))[::-1]
            once = found[position_here[found] == np.arange(len(found))]
            keys[once] += marks[number]
            new = once[first[once] < 0]
            first[new] = number
            position[new] = position_here[new]
        members = np.nonzero(free & (first >= 0))[0]
        # nearly sorted already, which the stable sort uses
        order = members[
            np.argsort(first[members] * self.classes + position[members], kind="stable")
        ]
        return _by_key(order, keys[order])

    def _named(self, sets: list[Ids]) -> Iterator[tuple[str, Ids, bool]]:
        """Yields (name, classes, residual) of each set, in forward order of the producers.

        Names depend on the producers alone, so that slimming changes none.
        """
        set_of = np.full(self.classes, -1, dtype=np.int64)
        for number, members in enumerate(sets):
            set_of[members] = number
        producers_of: list[list[int]] = [[] for _ in sets]
        for producer, found in enumerate(self.outputs):
            for number in np.flatnonzero(np.bincount(set_of[found] + 1)[1:]).tolist():
                producers_of[number].append(producer)
        seen = Counter[int]()
        for producers, members in sorted(
            zip(producers_of, sets, strict=True), key=lambda pair: pair[0]
        ):
            nth = seen[producers[0]]
            seen[producers[0]] += 1
            name = self.calls[producers[0]].module + (f":{nth}" if nth else "")
            yield name, members, sum(not self.gate[n] for n in producers) > 1
