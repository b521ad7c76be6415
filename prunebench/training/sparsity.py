"""Penalties on batch norms that make channels die while a network is trained.

They are added to the gradients, as functions of the weights alone, so a resumed training repeats
them bit for bit.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunebench.criteria.clipped_normal import z_score
from prunebench.criteria.norm_wiring import wiring
from prunebench.training.recipe import Phase

#: deviations below zero to which the hinge pushes: P(output <= 0) = 0.977, probability's default
HINGE_Z = 2.0
#: fraction of the phase without a hinge: until then it is not yet clear who is dispensable
HINGE_FROM = 0.3


class Sparsity:
    """The penalties of one phase on one network.

    ``gamma_l1``: lambda * sum |gamma| over all batch norms. Liu et al., "Network Slimming", 2017.

    ``gamma_hinge`` (ours): lambda * sum max(0, beta + 2 |gamma|) over the candidates, which pushes
    them just where criterion=bn_probability calls them dead. Candidates are, anew at every step,
    the `hinge_share` of channels of a norm that lie furthest below zero, of norms with a ReLU
    behind; and the same channels of the norm behind a depthwise convolution that reads them.
    """

    def __init__(self, network: nn.Module, phase: Phase, example: Tensor) -> None:
        """Finds the norms; `example` is an input [n, C, H, W], of which the first image is used."""
        self.phase = phase
        self.scales: list[Tensor] = []
        self.pairs: list[list[_BatchNorm]] = []
        if phase.gamma_l1 > 0:
            self.scales = [
                module.weight
                for module in network.modules()
                if isinstance(module, _BatchNorm) and module.affine and module.weight.requires_grad
            ]
        if phase.gamma_hinge > 0:
            self.pairs = hinged(network, example[:1])

    def add(self, epoch: int) -> None:
        """Adds the penalties' gradients to those of the loss.

        Args:
            epoch: counted from 0.
        """
        with torch.no_grad():
            weights = [scale for scale in self.scales if scale.grad is not None]
            if weights:
                grads = [weight.grad for weight in weights if weight.grad is not None]
                signs = torch._foreach_sign(weights)
                torch._foreach_add_(grads, list(signs), alpha=self.phase.gamma_l1)
            if epoch >= HINGE_FROM * self.phase.epochs:
                for pair in self.pairs:
                    self._push(pair)

    def _push(self, pair: list[_BatchNorm]) -> None:
        """Adds the hinge's gradients to the candidates of a norm and of those that follow it."""
        front = pair[0]
        assert front.running_var is not None
        z = z_score(front.weight, front.bias, front.running_var, front.eps)
        chosen = z.topk(int(self.phase.hinge_share * len(z))).indices
        for norm in pair:
            above = norm.bias + HINGE_Z * norm.weight.abs() > 0
            # index_fill_, since assigning a number by index would wait for the device
            push = torch.zeros_like(norm.bias).index_fill_(0, chosen, self.phase.gamma_hinge)
            push *= above
            if norm.bias.grad is not None and norm.weight.grad is not None:
                norm.bias.grad += push
                norm.weight.grad += HINGE_Z * push * norm.weight.sign()


def hinged(network: nn.Module, example: Tensor) -> list[list[_BatchNorm]]:
    """Returns the norms with a ReLU behind, each with those of its depthwise readers.

    Args:
        network: in any mode; left unchanged.
        example: an input [1, C, H, W].
    """
    found = {
        name: norm
        for name, norm in wiring(network, example).items()
        if norm.ceiling is not None and _serves(network.get_submodule(name))
    }
    pairs = []
    for name, norm in found.items():
        if norm.source is None:
            behind = [other for other, its in found.items() if its.source == name]
            modules = [network.get_submodule(each) for each in (name, *behind)]
            pairs.append([module for module in modules if isinstance(module, _BatchNorm)])
    return pairs


def _serves(module: nn.Module) -> bool:
    """Whether a norm has everything the hinge looks at."""
    return isinstance(module, _BatchNorm) and module.affine and module.running_var is not None
