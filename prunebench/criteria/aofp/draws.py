"""Keeps the draws of a step at fixed addresses on the device, where recorded steps read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from prunebench.criteria.aofp.edges import Edge


class Draws:
    """Device memory for one step's draws of all layers, and where consumers read the channels."""

    def __init__(self, edges: Sequence[Edge], most: int, device: torch.device) -> None:
        """Allocates the memory.

        Args:
            edges: the edges of all layers.
            most: most draws of a layer in one step.
            device: the device that reads them.
        """
        # [classes, most inputs of a class]; -1 where a class holds fewer inputs than another
        self.inputs = [pad_sequence([*e.positions], True, padding_value=-1) for e in edges]
        self.ragged = [bool((inputs < 0).any()) for inputs in self.inputs]
        self.edges = edges
        room = sum(most * (1 + edge.consumer.weight.shape[1]) for edge in edges)
        self.memory = torch.zeros(room, dtype=torch.int64, device=device)

    def drop(self, number: int, classes: Tensor) -> Tensor:
        """Returns what a draw of `classes` drops of the inputs of consumer `number`, int64.

        Returns:
            Their positions, class by class; with `Edge.flags`, [inputs]: 1 for every dropped input,
            0 for the others.
        """
        found = self.inputs[number].index_select(0, classes).flatten()
        if self.ragged[number]:
            found = found[found >= 0]
        edge = self.edges[number]
        if edge.flags:
            inputs = edge.consumer.weight.shape[1]
            return torch.zeros(inputs, dtype=torch.int64).index_fill_(0, found, 1)
        return found

    def bring(self, parts: Mapping[int, Sequence[Tensor]]) -> dict[int, list[Tensor]]:
        """Copies all `parts` to the device at once.

        Args:
            parts: layer -> int64 tensors on the CPU.

        Returns:
            The same on the device; parts of the same lengths always lie at the same addresses.
        """
        flat = [part for own in parts.values() for part in own]
        if not flat:
            return {number: [] for number in parts}
        whole = torch.cat(flat)
        here = self.memory[: len(whole)]
        # torch does not reuse pinned memory before the copy is done
        here.copy_(whole.pin_memory() if here.is_cuda else whole, non_blocking=True)
        views = iter(torch.split(here, [len(part) for part in flat]))
        return {number: [next(views) for _ in own] for number, own in parts.items()}
