"""Penalties that push batch norms to zero, so that channels die while a network is trained.

They are added to the gradients and depend on the weights and the epoch alone, so a resumed training
repeats them bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn.modules.batchnorm import _BatchNorm

from prunebench.analysis.clipped_normal import z_score
from prunebench.analysis.dead_channels import misfit
from prunebench.analysis.norm_wiring import wiring
from prunebench.channels import trace
from prunebench.contracts import Moment, RepeatingObserver
from prunebench.errors import TrainingError
from prunebench.recipes import Phase

#: z, in deviations below zero, to which the hinge pushes: P(output <= 0) = 0.977, the default of
#: criterion=bn_probability
HINGE_Z = 2.0
#: the same before a depthwise convolution with a linear norm behind it, which amplifies channels
#: that rarely fire; at z = 4 it no longer does (rho falls to 0.07 at |gamma| = 1)
DEEP_Z = 4.0
#: z at which channels are counted
LEVELS = (1, 2, 3)
#: fraction of the phase without a hinge: before, it is not clear which channels are dispensable
HINGE_FROM = 0.3


@dataclass(frozen=True)
class Hinge:
    """The norms of one channel group, whose same classes the hinge pushes.

    Attributes:
        size: number of classes.
        z: deviations below zero to push to.
        fronts: norms right behind the producers, each with the class of its channels, int64 [C].
        behind: norms behind depthwise convolutions, likewise.
    """

    size: int
    z: float
    fronts: list[tuple[_BatchNorm, Tensor]]
    behind: list[tuple[_BatchNorm, Tensor]]


class Sparsity(RepeatingObserver):
    """The observer that adds the penalties of one phase.

    ``gamma_l1``: lambda * sum |gamma| over all batch norms, or only over those that the hinge would
    push (``l1_on=read``). Liu et al., "Network Slimming", 2017.

    ``gamma_hinge`` (ours): lambda * sum max(0, beta + 2 |gamma|) over the candidates, which pushes
    them just to where criterion=bn_probability calls them dead (4 |gamma| before a depthwise
    convolution with a linear norm, see `DEEP_Z`). Candidates are chosen anew at every step: the
    `hinge_share` of each group's classes that lie furthest below zero right behind the producers
    (or of all classes together, see `candidates`). They are pushed in all norms of the group that
    have a ReLU behind them. So both sides of a depthwise convolution die together, and so do
    channels that grouped convolutions tie.

    With a hinge, or under ``l1_on=read``, each epoch logs how many channels lie at least 1, 2 and 3
    deviations below zero (`LEVELS`).
    """

    def __init__(
        self,
        phase: Phase,
        shape: tuple[int, int, int],
        *,
        stage: str = "",
        log: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        """Stores the settings; `start` finds the norms.

        Args:
            phase: gives the penalties.
            shape: shape of the images, (C, H, W).
            stage: name of the training.
            log: receives the rows; None counts nothing.
        """
        self.phase, self.shape, self.stage, self.log = phase, shape, stage, log
        self.scales: list[Tensor] = []
        self.read: list[Hinge] = []  # groups that bn_probability scores; empty unless needed
        self.hinges: list[Hinge] = []  # those that the hinge pushes: all of `read`, or none

    def start(self, network: nn.Module, optimizer: optim.Optimizer) -> None:
        """Finds the norms to push.

        Raises:
            TrainingError: a penalty finds no norm that it could push.
        """
        read = self.phase.gamma_l1 > 0 and self.phase.l1_on == "read"
        if read or self.phase.gamma_hinge > 0:
            device = next(network.parameters()).device
            self.read = hinges(network, torch.zeros((1, *self.shape), device=device))
        self.hinges = self.read if self.phase.gamma_hinge > 0 else []
        norms = {
            norm: None for hinge in self.read for norm, _ in (*hinge.fronts, *hinge.behind)
        }  # each once
        if self.phase.gamma_l1 > 0:
            self.scales = [
                module.weight
                for module in (norms if read else network.modules())
                if isinstance(module, _BatchNorm) and module.affine and module.weight.requires_grad
            ]
        asked = {"gamma_l1": self.scales, "gamma_hinge": self.hinges}
        for name, found in asked.items():
            if getattr(self.phase, name) > 0 and not found:
                raise TrainingError(
                    f"{name} acts on scales of batch norms, and this network has none to act on; "
                    f"set {name}=0 in this phase of the recipe"
                )

    def after_backward(self, moment: Moment) -> None:
        """Adds the penalties' gradients to those of the loss."""
        with torch.no_grad():
            weights = [scale for scale in self.scales if scale.grad is not None]
            if weights:
                grads = [weight.grad for weight in weights if weight.grad is not None]
                signs = torch._foreach_sign(weights)
                torch._foreach_add_(grads, list(signs), alpha=self.phase.gamma_l1)
            if self._pushes(moment.epoch):
                chosen = candidates(self.hinges, self.phase.hinge_share, self.phase.hinge_over)
                for hinge, classes in zip(self.hinges, chosen, strict=True):
                    self._push(hinge, classes)

    def after_step(self, moment: Moment) -> bool:
        """Logs the counts at the end of an epoch; never ends the training."""
        if self.log is not None and self.read and moment.step + 1 == moment.steps:
            z = torch.cat([_lowest(hinge) for hinge in self.read])
            counts = {f"z>={level}": int((z >= level).sum()) for level in LEVELS}
            row = {"stage": f"{self.stage}-sparsity", "epoch": moment.epoch + 1}
            self.log({**row, "channels": len(z), **counts})
        return False

    def repeats(self, epoch: int, step: int, steps: int) -> bool | None:
        """Returns whether the hinge pushes; None at the step that ends with counts."""
        if self.log is not None and self.read and step + 1 == steps:
            return None
        return self._pushes(epoch)

    def _pushes(self, epoch: int) -> bool:
        return epoch >= HINGE_FROM * self.phase.epochs

    def _push(self, hinge: Hinge, chosen: Tensor) -> None:
        """Adds the hinge's gradients for the classes `chosen` of one group, bool [size]."""
        wanted = self.phase.gamma_hinge * chosen.double()
        for norm, classes in [*hinge.fronts, *hinge.behind]:
            push = wanted[classes].to(norm.bias) * (norm.bias + hinge.z * norm.weight.abs() > 0)
            if norm.bias.grad is not None and norm.weight.grad is not None:
                norm.bias.grad += push
                norm.weight.grad += hinge.z * push * norm.weight.sign()


def candidates(hinges: Sequence[Hinge], share: float, over: str) -> list[Tensor]:
    """Returns which classes of each group lie furthest below zero, bool [size].

    Args:
        hinges: the groups.
        share: fraction of the classes to choose.
        over: ``group`` chooses it from each group; ``network`` from all groups together, except
            for the max(2, 5 %) of each group that lie least below zero, which budgets leave.
    """
    lowest = [_lowest(hinge) for hinge in hinges]
    if over == "group":
        return [_top(z, int(share * len(z))) for z in lowest]
    # -inf for the classes that stay in any case
    open_to_all = [
        torch.where(_top(z, len(z) - min(len(z), max(2, ceil(0.05 * len(z))))), z, -torch.inf)
        for z in lowest
    ]
    whole = torch.cat(open_to_all) if open_to_all else torch.zeros(0)
    chosen = _top(whole, int(share * len(whole))) & whole.isfinite()
    return list(torch.split(chosen, [len(z) for z in lowest]))


def _top(z: Tensor, count: int) -> Tensor:
    """Returns where the `count` highest entries are, bool [n]."""
    # index_fill_, since assignment by index would synchronise with the device
    return torch.zeros_like(z, dtype=torch.bool).index_fill_(0, z.topk(count).indices, True)


def _lowest(hinge: Hinge) -> Tensor:
    """Returns how many deviations below zero each class lies, float64 [size].

    A class with several channels lies where the one least below zero does.
    """
    device = hinge.fronts[0][1].device
    z = torch.full((hinge.size,), torch.inf, dtype=torch.float64, device=device)
    with torch.no_grad():
        for norm, classes in hinge.fronts:
            assert norm.running_var is not None
            own = z_score(norm.weight, norm.bias, norm.running_var, norm.eps)
            z.scatter_reduce_(0, classes, own, "amin")
    return z


def hinges(network: nn.Module, example: Tensor) -> list[Hinge]:
    """Returns the channel groups with batch norm and ReLU behind every producer.

    A norm through which part of a group's channels or several groups pass is left out.

    Args:
        network: in any mode; left unchanged.
        example: an input [1, C, H, W].
    """
    norms = wiring(network, example)
    found = []
    for group in trace(network, example).groups:
        if misfit(group, norms) is not None:
            continue
        producers = {site.module for site in group.producers}
        linear = any(norms[site.module].ceiling is None for site in group.norms)
        hinge = Hinge(group.size, DEEP_Z if linear else HINGE_Z, [], [])
        for site in group.norms:
            norm, module = norms[site.module], network.get_submodule(site.module)
            if norm.ceiling is not None and _serves(module) and bool((site.classes >= 0).all()):
                assert isinstance(module, _BatchNorm)
                side = hinge.fronts if norm.fed_by in producers else hinge.behind
                side.append((module, site.classes.to(module.weight.device)))
        if hinge.fronts:
            found.append(hinge)
    return found


def _serves(module: nn.Module) -> bool:
    """Whether a norm has all that the hinge needs: scale, shift and running statistics."""
    return isinstance(module, _BatchNorm) and module.affine and module.running_var is not None
