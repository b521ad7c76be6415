"""Scoring edges: a group, the one layer that reads it, and what follows that layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from prunebench.analysis.calls import Activation, Calls, follow
from prunebench.analysis.norm_wiring import empty_image
from prunebench.channels import ChannelGroup, ChannelMap
from prunebench.errors import PruningError

NORMS = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True, eq=False)
class Edge:
    """A group and its only consumer.

    Attributes:
        group: the group whose channels are scored.
        consumer: a convolution (of one group) or linear layer.
        norm: the batch norm that reads the consumer's output, if any.
        activation: the activation right behind (before any addition), a module or a function, if
            any.
        positions: per class, the consumer's input positions that hold it.
        outputs: [2, out]; number of the scored group and class of every output channel, -1 where it
            belongs to no scored group.
        flags: whether a draw is flags over all inputs of the consumer instead of the positions that
            it drops. Positions are less work, but flags have the same shape whatever is searched,
            so that on CUDA, where recording a step anew takes as long as dozens of replays, one
            recording serves all draws.
        scratch: element count -> memory for intermediate results, shared by all edges.
    """

    group: ChannelGroup
    consumer: nn.Conv2d | nn.Linear
    norm: NORMS | None
    activation: Activation | None
    positions: tuple[Tensor, ...]
    outputs: Tensor
    flags: bool = False
    scratch: dict[int, Tensor] = field(default_factory=dict, repr=False)


def find_edges(network: nn.Module, cmap: ChannelMap, groups: Sequence[ChannelGroup]) -> list[Edge]:
    """Returns the scoring edges of `groups`, in their order.

    Raises:
        PruningError: a group has no scoring edge.
    """
    for name, reason in unfit(network, groups).items():
        raise PruningError(f"criterion=aofp cannot score {name}: {reason}")
    calls = follow(network, empty_image(network, cmap))
    scratch: dict[int, Tensor] = {}
    flags = next(network.parameters()).is_cuda
    edges = [_edge(network, group, groups, calls) for group in groups]
    return [replace(edge, flags=flags, scratch=scratch) for edge in edges]


def unfit(network: nn.Module, groups: Sequence[ChannelGroup]) -> dict[str, str]:
    """Returns the groups without a scoring edge, by name, and why (streams, several consumers)."""
    return {group.name: reason for group in groups if (reason := _unfit(network, group))}


def _unfit(network: nn.Module, group: ChannelGroup) -> str:
    """Returns why a group has no scoring edge; "" if it has one."""
    if group.residual:
        return "it lies on a residual stream"
    if len(group.consumers) != 1:
        return f"it is read by {len(group.consumers)} layers"
    [site] = group.consumers
    module = network.get_submodule(site.module)
    if not isinstance(module, nn.Conv2d | nn.Linear):
        return f"{site.module} is no convolution or linear layer"
    if isinstance(module, nn.Conv2d) and module.groups != 1:
        return f"{site.module} is a grouped convolution"
    return ""


def _edge(
    network: nn.Module, group: ChannelGroup, chosen: Sequence[ChannelGroup], calls: Calls
) -> Edge:
    [site] = group.consumers
    consumer = network.get_submodule(site.module)
    assert isinstance(consumer, nn.Conv2d | nn.Linear)
    norm = calls.reader(calls.output(consumer), NORMS)
    outputs = torch.full((2, consumer.weight.shape[0]), -1)
    for number, other in enumerate(chosen):
        for made in other.producers:
            if made.module == site.module and made.dim == 0:
                mine = made.classes >= 0
                outputs[0, mine] = number
                outputs[1, mine] = made.classes[mine]
    assert norm is None or isinstance(norm, NORMS)
    return Edge(
        group=group,
        consumer=consumer,
        norm=norm,
        activation=calls.activation(calls.output(norm or consumer)),
        positions=tuple((site.classes == c).nonzero()[:, 0] for c in range(group.size)),
        outputs=outputs,
    )
