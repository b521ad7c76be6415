"""Finds the parameter dimensions that hold the channels of each group."""

from __future__ import annotations

import numpy as np
import torch

from prunebench.channels.labels.tape import Call, Tape
from prunebench.channels.map import ChannelGroup, Ids, Site


class Sites:
    """The parameter dimensions of each group, sorted by the role of their layer."""

    def __init__(
        self,
        tape: Tape,
        dims: dict[tuple[str, int], Ids],
        locate: Ids,
        count: int,
    ) -> None:
        """Sorts every use of a weight by group."""
        self.tape, self.dims, self.locate = tape, dims, np.ascontiguousarray(locate)
        self.found: list[dict[str, list[Site]]] = [
            {"producers": [], "norms": [], "depthwise": [], "consumers": []} for _ in range(count)
        ]
        # id of an array of classes, which several dimensions share -> result of `_by_group`
        self.reached: dict[int, list[tuple[int, torch.Tensor]]] = {}
        self.first_call: list[Call | None] = [None] * count
        seen: set[str] = set()
        for call in tape.calls:
            if call.kind in ("conv", "linear"):
                for number, _ in self._groups_along(call.weight, call.reads):
                    self.first_call[number] = self.first_call[number] or call
            if call.weight not in seen and call.kind not in ("gather", "recurrent"):
                seen.add(call.weight)
                self._sort(call)

    def _sort(self, call: Call) -> None:
        """Adds the sites of a call's weight to the groups whose channels it holds."""
        roles = {"producers": 1 - call.reads, "consumers": call.reads}
        if call.kind in ("norm", "depthwise"):
            roles = {"norms" if call.kind == "norm" else "depthwise": 0}
        norm = self.tape.normed.get(call.weight)
        for role, dim in roles.items():
            for number, mine in self._groups_along(call.weight, dim):
                self.found[number][role].append(Site(call.weight, dim, mine, norm))

    def _groups_along(self, weight: str, dim: int) -> list[tuple[int, torch.Tensor]]:
        """Returns (number, its class at each index or -1) of the groups along `dim` of `weight`."""
        classes = self.dims[weight, dim]
        if id(classes) not in self.reached:
            self.reached[id(classes)] = self._by_group(classes)
        return self.reached[id(classes)]

    def _by_group(self, classes: Ids) -> list[tuple[int, torch.Tensor]]:
        groups, local = self.locate[0][classes], self.locate[1][classes]
        if (groups == groups[:1]).all():
            return [(int(groups[0]), torch.from_numpy(local))] if (groups >= 0).any() else []
        present = np.flatnonzero(np.bincount(groups + 1)) - 1
        return [
            (n, torch.from_numpy(np.where(groups == n, local, -1)))
            for n in present.tolist()
            if n >= 0
        ]

    def describe(self, number: int, name: str, size: int, residual: bool) -> ChannelGroup:
        """Returns group `number` with all its sites."""
        sites = {role: tuple(found) for role, found in self.found[number].items()}
        weight, call = sites["producers"][0].name, self.first_call[number]
        return ChannelGroup(
            name=name,
            size=size,
            **sites,
            residual=residual,
            activation=self.tape.activations.get(weight),
            block=self.tape.blocks.get(weight),
            consumer=None if call is None else call.place,
        )
