"""The constants that stand for dead channels, and forwards in which norms put these out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from prunebench.analysis.clipped_normal import clipped_moments, deviation, still
from prunebench.analysis.dead_channels import Standing
from prunebench.analysis.norm_wiring import Norm, affine

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.channels import ChannelGroup

CONSTANTS = ("zero_input", "relu_beta", "relu_mean")

#: name of a norm -> (channels [k], values [k]) that its output is held at
Held = dict[str, tuple["Tensor", "Tensor"]]


def values(network: nn.Module, norm: Norm, constant: str) -> Tensor:
    """Returns the constant that stands for each output channel of `norm`, float64 [C].

    For a channel whose output is constant anyway, it is that constant.

    Args:
        network: the network of the norm.
        norm: its wiring; if no ReLU reads it, its constants are its shifts.
        constant: ``zero_input`` (zero behind the ReLU), ``relu_beta`` (the ReLU of the shift) or
            ``relu_mean`` (the mean of a normal distribution behind the ReLU).
    """
    import torch

    gamma, beta, variance, eps = affine(network.get_submodule(norm.name), norm.name)
    if norm.ceiling is None:
        return beta
    shift = beta.clamp(0, norm.ceiling)
    if constant == "zero_input":
        return torch.where(still(gamma, variance, eps), shift, 0.0)
    if constant == "relu_beta":
        return shift
    return clipped_moments(beta, deviation(gamma, variance, eps), norm.ceiling)[0]


def hold_group(
    network: nn.Module,
    group: ChannelGroup,
    gone: Tensor,
    norms: Mapping[str, Norm],
    *,
    standing: Standing,
    constant: str,
) -> Held:
    """Returns the values at which the norms of `group` hold the classes `gone`.

    The batch norms behind the producers hold them all; without such a norm nothing is held. A norm
    behind a depthwise convolution holds only the classes that are deader behind that convolution
    than before it, and only if nothing else reads its input. All others, and those that really are
    constant before it, come out as what the convolution and norm make of that constant.

    Args:
        network: the network of the group.
        group: the group.
        gone: bool [group.size]; the classes that are cut.
        norms: wiring of the network.
        standing: how dead the classes are.
        constant: as in `values`.
    """
    producers = {site.module for site in group.producers}
    held: Held = {}
    for site in group.norms:
        norm = norms.get(site.module)
        if norm is None:  # no batch norm
            continue
        held_here = gone
        if norm.fed_by not in producers:
            passage = standing.passages.get(norm.fed_by or "")
            if passage is None or not passage.open or norm.ceiling is None:
                continue
            held_here = gone & ~passage.still & (passage.behind > passage.before)
        classes = site.classes.cpu()
        at = (held_here[classes] & (classes >= 0)).nonzero().flatten()
        if len(at):
            held[norm.name] = (at, values(network, norm, constant)[at])
    return held


@contextmanager
def holding(network: nn.Module, held: Held) -> Iterator[None]:
    """Makes norms put out the constants `held` within the block."""

    def hold(name: str, module: nn.Module, given: Any, out: Tensor) -> Tensor:
        at, constants = held[name]
        changed = out.clone()
        view = [-1 if d == 1 else 1 for d in range(out.dim())]
        changed[:, at.to(out.device)] = constants.to(out).view(view)
        return changed

    with ExitStack() as hooks:
        for name in held:
            module = network.get_submodule(name)
            hooks.enter_context(module.register_forward_hook(partial(hold, name)))
        yield


def uneven(
    network: nn.Module, groups: tuple[ChannelGroup, ...], held: Held, example: Tensor
) -> dict[str, Tensor]:
    """Returns the classes that reach a consumer as more than one value: name -> bool [size].

    A constant other than 0 does so behind zero padding or squeeze-and-excitation.

    Args:
        network: a network in eval mode.
        groups: the groups to examine.
        held: constants of the classes in question; for other classes the result means nothing.
        example: an image [1, C, ...]; the network runs on two images of noise of its shape.
    """
    import torch

    readers: dict[str, list[tuple[str, Tensor]]] = {}
    found = {}
    gated = {group.name for group in groups if len(group.producers) > 1 and not group.residual}
    for group in groups:
        found[group.name] = torch.zeros(group.size, dtype=torch.bool)
        for site in group.consumers:
            readers.setdefault(site.module, []).append((group.name, site.classes.cpu()))

    def look(name: str, module: nn.Module, given: Any) -> None:
        x = given[0].flatten(2) if given[0].dim() > 2 else given[0][..., None]
        low, high = x.amin((0, 2)).cpu(), x.amax((0, 2)).cpu()
        rounding = 64 * torch.finfo(x.dtype).eps
        largest = torch.maximum(low.abs(), high.abs())
        for group, classes in readers[name]:
            # a gate that is equal for both images may differ for a third: behind it only 0 is even
            differs = largest > 0 if group in gated else high - low > rounding * largest
            classes = classes.repeat(len(differs) // len(classes))
            found[group][classes[differs & (classes >= 0)]] = True

    shape = (2, *example.shape[1:])
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(example)
    with ExitStack() as hooks, torch.no_grad(), holding(network, held):
        for name in readers:
            module = network.get_submodule(name)
            hooks.enter_context(module.register_forward_pre_hook(partial(look, name)))
        network(noise)
    return found
