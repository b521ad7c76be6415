"""Scoring edges: a group, the one layer that reads it, and where its answer is measured."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from prunebench.channels import ChannelGroup, ChannelMap, in_mode
from prunebench.errors import PruningError

ACTIVATIONS = (
    nn.ReLU, nn.Hardtanh, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Hardswish, nn.PReLU,
    nn.Sigmoid, nn.Tanh, nn.Mish, nn.Softplus,
)  # fmt: skip
NORMS = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True, eq=False)
class Edge:
    """A group and its only consumer.

    Attributes:
        group: whose channels are scored.
        consumer: a convolution (of one group) or linear layer.
        norm: the batch norm that reads the consumer's output, if any.
        activation: the activation right behind (before any addition), not in place; if any.
        positions: per class, the consumer's inputs that hold it.
        outputs: (number of the group among the scored ones, class) of every output channel,
            -1 where it belongs to no scored group [2, out].
        scratch: memory for intermediate results, shared by all edges: element count -> tensor.
    """

    group: ChannelGroup
    consumer: nn.Conv2d | nn.Linear
    norm: NORMS | None
    activation: nn.Module | None
    positions: tuple[Tensor, ...]
    outputs: Tensor
    scratch: dict[int, Tensor] = field(default_factory=dict, repr=False)


def find_edges(
    network: nn.Module, cmap: ChannelMap, groups: Sequence[ChannelGroup]
) -> tuple[list[Edge], dict[str, str]]:
    """Returns the scoring edges of `groups`, and of the others the reason why they have none.

    Groups on a residual stream and groups with several consumers have none.

    Raises:
        PruningError: no group has one.
    """
    missing: dict[str, str] = {}
    chosen: list[ChannelGroup] = []
    for group in groups:
        reason = _unfit(network, group)
        if reason:
            missing[group.name] = reason
        else:
            chosen.append(group)
    if not chosen:
        told = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
        raise PruningError(f"criterion=aofp cannot score any group of this network ({told})")
    calls = _follow(network, cmap.tape.example.shape)
    scratch: dict[int, Tensor] = {}
    return [
        replace(_edge(network, group, chosen, calls), scratch=scratch) for group in chosen
    ], missing


def _unfit(network: nn.Module, group: ChannelGroup) -> str:
    """Returns why a group has no scoring edge; nothing if it has one."""
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
    network: nn.Module, group: ChannelGroup, chosen: Sequence[ChannelGroup], calls: list[_Call]
) -> Edge:
    [site] = group.consumers
    consumer = network.get_submodule(site.module)
    assert isinstance(consumer, nn.Conv2d | nn.Linear)
    norm = _next(calls, consumer, (NORMS,))
    activation = _next(calls, norm or consumer, ACTIVATIONS)
    if getattr(activation, "inplace", False):
        activation = deepcopy(activation)
        activation.inplace = False  # type: ignore[union-attr]
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
        activation=activation,
        positions=tuple((site.classes == c).nonzero()[:, 0] for c in range(group.size)),
        outputs=outputs,
    )


@dataclass
class _Call:
    """One call of a module without children.

    Attributes:
        module: which.
        taken, before: its input, and how often that had been written to by then.
        given, after: its output, likewise.
    """

    module: nn.Module
    taken: Tensor
    before: int
    given: Tensor
    after: int


def _next(calls: list[_Call], module: nn.Module, kinds: tuple[Any, ...]) -> nn.Module | None:
    """Returns the module of one of `kinds` that reads the very output of `module`, if any.

    An addition in place leaves the tensor the same one, but written to once more.
    """
    for call in calls:
        if call.module is module:
            for other in calls:
                same = other.taken is call.given and other.before == call.after
                if same and isinstance(other.module, kinds):
                    found: nn.Module = other.module
                    return found
    return None


def _follow(network: nn.Module, shape: Sequence[int]) -> list[_Call]:
    """Runs the network once in eval mode and notes which leaf module reads what."""
    calls: list[_Call] = []
    versions: list[int] = []

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        versions.append(inputs[0]._version if inputs else 0)

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        version = versions.pop()
        if inputs and isinstance(output, Tensor):
            calls.append(_Call(module, inputs[0], version, output, output._version))

    handles = []
    for module in network.modules():
        if not any(True for _ in module.children()):
            handles += [
                module.register_forward_pre_hook(before),
                module.register_forward_hook(after),
            ]
    weight = next(network.parameters())
    try:
        with in_mode(network), torch.no_grad():
            network(torch.zeros(2, *shape[1:], device=weight.device, dtype=weight.dtype))
    finally:
        for handle in handles:
            handle.remove()
    return calls
