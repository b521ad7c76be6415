"""Multiplies the channels that consumers read: by gates in training, by 0 once they are cut.

A channel that every consumer sees as zero has no effect on the network, whatever lies between
(norms with their shifts, depthwise layers, additions on a residual stream), so masking here
computes what the slimmed network will, and one gate serves a whole stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from prunebench.channels.map import ChannelGroup
from prunebench.channels.plan import Plan
from prunebench.errors import PruningError


@dataclass
class GatedConsumer:
    """A convolution or linear layer that reads channels of some groups.

    Attributes:
        parts: numbers of the groups it reads.
        index: int64 [inputs]: position of each input among the channels of `parts` laid side by
            side, and one further position for inputs of no group; None where it reads a single
            group in order.
        last: whether channels are the last dimension of the input (linear layers), not the second.
    """

    parts: list[int]
    index: Tensor | None
    last: bool


class ConsumerFactors:
    """Hooks that multiply the inputs of consumers channel by channel.

    Attributes:
        groups: the groups whose channels are multiplied.
        alive: per group, bool [size] on the CPU; channels that are False are read as zero.
        gates: per group, [N, size] factors for the running forward; None uses `alive` alone.
    """

    def __init__(self, groups: Sequence[ChannelGroup]) -> None:
        """Begins with every channel alive."""
        self.groups = tuple(groups)
        self.alive = [torch.ones(group.size, dtype=torch.bool) for group in groups]
        self.gates: list[Tensor] | None = None
        self._masks: list[Tensor | None] = [None for _ in groups]
        self._handles: list[RemovableHandle] = []
        self._device = torch.device("cpu")

    def attach(self, network: nn.Module) -> None:
        """Puts the hooks on the consumers of the groups.

        Raises:
            PruningError: a consumer is no convolution or linear module.
        """
        self._device = next(network.parameters()).device
        for name, consumer in gated_consumers(network, self.groups).items():
            consumer.index = None if consumer.index is None else consumer.index.to(self._device)
            hook = partial(self._multiply, consumer)
            self._handles.append(network.get_submodule(name).register_forward_pre_hook(hook))
        self.refresh()

    def detach(self) -> None:
        """Takes the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def refresh(self) -> None:
        """Copies `alive` into the masks, in place, since recorded CUDA steps read those."""
        for number, alive in enumerate(self.alive):
            mask = self._masks[number]
            if mask is not None:
                mask.copy_(alive[None])
            elif not bool(alive.all()):
                self._masks[number] = alive.to(self._device, torch.float32)[None]

    def masked(self) -> tuple[bool, ...]:
        """Returns for each group whether it has a mask: some channel was cut, now or before."""
        return tuple(mask is not None for mask in self._masks)

    def plan(self) -> Plan:
        """Returns the plan that keeps the channels that are alive."""
        return Plan(
            {
                group.name: alive.nonzero()[:, 0].tolist()
                for group, alive in zip(self.groups, self.alive, strict=True)
            }
        )

    def factor(self, consumer: GatedConsumer) -> Tensor | None:
        """Returns the factors [N or 1, inputs] of a consumer; None where all are 1."""
        found = [self.gates[k] if self.gates else self._masks[k] for k in consumer.parts]
        if all(part is None for part in found):
            return None
        if consumer.index is None:
            return found[0]
        count = max(1 if part is None else part.size(0) for part in found)
        sizes = [self.groups[k].size for k in consumer.parts]
        whole = [
            torch.ones(count, size, device=self._device) if part is None else part
            for part, size in zip(found, sizes, strict=True)
        ]
        whole.append(torch.ones(count, 1, device=self._device))
        return torch.cat(whole, 1).index_select(1, consumer.index)

    def _multiply(
        self, consumer: GatedConsumer, module: nn.Module, inputs: tuple[Any, ...]
    ) -> tuple[Any, ...] | None:
        factor = self.factor(consumer)
        if factor is None:
            return None
        x = inputs[0]
        between = [1] * (x.dim() - 2)
        rows, columns = factor.shape
        shape = [rows, *between, columns] if consumer.last else [rows, columns, *between]
        return (x * factor.to(x.dtype).view(shape), *inputs[1:])


def gated_consumers(network: nn.Module, groups: Sequence[ChannelGroup]) -> dict[str, GatedConsumer]:
    """Returns the consumers of `groups` by module name, and which channels each of them reads.

    Raises:
        PruningError: a consumer is no convolution or linear module.
    """
    found: dict[str, list[tuple[int, Tensor]]] = {}
    for number, group in enumerate(groups):
        for site in group.consumers:
            found.setdefault(site.module, []).append((number, site.classes))
    described = {}
    for name, parts in found.items():
        module = network.get_submodule(name)
        if not isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            raise PruningError(
                f"{name} ({type(module).__name__}) reads channels in a way that pruning during "
                "training cannot mask; leave its groups out with budget.exclude"
            )
        described[name] = _gated_consumer(module, parts, [group.size for group in groups])
    return described


def _gated_consumer(
    module: nn.Module, parts: list[tuple[int, Tensor]], sizes: Sequence[int]
) -> GatedConsumer:
    """Returns which channel of which group each input of `module` is."""
    linear = isinstance(module, nn.Linear)
    inputs = int(module.in_features if linear else module.in_channels)  # type: ignore[arg-type]
    numbers = [number for number, _ in parts]
    index = torch.full((inputs,), sum(sizes[number] for number in numbers))
    offset = 0
    for number, classes in parts:
        # the k-th input of every group of a grouped convolution is the same class
        spread = classes.repeat(inputs // len(classes))
        index = torch.where(spread >= 0, spread + offset, index)
        offset += sizes[number]
    in_order = len(parts) == 1 and torch.equal(index, torch.arange(sizes[numbers[0]]))
    return GatedConsumer(numbers, None if in_order else index, linear)
