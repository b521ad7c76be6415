"""The constants that dead channels are taken for, and the network with channels held at them."""

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

#: norm -> (positions [k], values [k]) at which its output is held
Held = dict[str, tuple["Tensor", "Tensor"]]


def values(network: nn.Module, norm: Norm, constant: str) -> Tensor:
    """Returns what every channel of `norm` puts out when it is cut, float64 [C].

    One whose output is a constant anyway puts out that.

    Args:
        network: of the norm.
        norm: its wiring; one that no ReLU reads always puts out its shift.
        constant: ``zero_input`` (nothing behind the ReLU), ``relu_beta`` (the ReLU of the shift) or
            ``relu_mean`` (the mean of a normal behind the ReLU).
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
    """Returns at which values the norms of `group` hold the classes `gone`.

    The batch norms behind the producers hold them all; without one, nothing is held. A norm behind
    a depthwise convolution holds those that are deader there than in front, where nothing else
    reads what is in front; all others come out of it as whatever it makes of the constant in front,
    and so do those that are really constant in front.

    Args:
        network: of the group.
        group: of classes.
        gone: bool [group.size].
        norms: wiring of the network.
        standing: how dead the classes are.
        constant: as in `values`.
    """
    producers = {site.module for site in group.producers}
    held: Held = {}
    for site in group.norms:
        norm = norms.get(site.module)
        if norm is None:  # of another kind than batch norm
            continue
        late = gone
        if norm.fed_by not in producers:
            passage = standing.passages.get(norm.fed_by or "")
            if passage is None or not passage.open or norm.ceiling is None:
                continue
            late = gone & ~passage.still & (passage.behind > passage.before)
        classes = site.classes.cpu()
        at = (late[classes] & (classes >= 0)).nonzero().flatten()
        if len(at):
            held[norm.name] = (at, values(network, norm, constant)[at])
    return held


@contextmanager
def holding(network: nn.Module, held: Held) -> Iterator[None]:
    """Holds the outputs of norms while the body runs: the network with constants emulated."""

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
    """Returns group name -> bool [size]: classes that reach a consumer as more than one value.

    A constant other than 0 does so behind zero padding and squeeze-and-excitation.

    Args:
        network: in eval mode.
        groups: to look at.
        held: constants of the classes in question; the answer for others is always True or moot.
        example: an image [1, C, ...]; two of noise in its shape are shown.
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
            # a gate may be the same for both images and not for the next: behind it only 0 is sure
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
