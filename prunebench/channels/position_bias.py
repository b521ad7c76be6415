"""Convolutions with a bias of their own at every position of their output."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

#: name of the parameter in a state dict, behind the convolution's name and a dot; stored networks
#: have it, so it stays
PLACE_BIAS = "place_bias"


class PositionBiasConv2d(nn.Conv2d):
    """A convolution with a bias of shape [out, H, W], which binds it to one size of images.

    What a constant channel adds behind a zero-padded convolution differs near the border; only such
    a bias replaces it exactly.
    """

    place_bias: nn.Parameter

    def forward(self, x: Tensor) -> Tensor:
        """Returns the convolution of `x` [N, in, h, w] plus the bias, [N, out, H, W]."""
        return super().forward(x) + self.place_bias


def add_position_bias(conv: nn.Module, bias: Tensor) -> None:
    """Makes convolution `conv` add `bias` [out, H, W] to its output, in place."""
    assert isinstance(conv, nn.Conv2d)
    if isinstance(conv, PositionBiasConv2d):
        with torch.no_grad():
            conv.place_bias.add_(bias.to(conv.place_bias))
        return
    conv.__class__ = PositionBiasConv2d
    conv.place_bias = nn.Parameter(bias.to(conv.weight))


def add_position_biases_as_in(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Gives convolutions of `network` zero position biases where state dict `state` has some."""
    for key, bias in state.items():
        owner, _, leaf = key.rpartition(".")
        if leaf == PLACE_BIAS and not isinstance(network.get_submodule(owner), PositionBiasConv2d):
            add_position_bias(network.get_submodule(owner), torch.zeros_like(bias))
