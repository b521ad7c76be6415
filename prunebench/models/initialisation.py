"""Draws the weights of fresh networks."""

from __future__ import annotations

from torch import nn


def draw_convolutions(network: nn.Module) -> None:
    """Draws He-normal convolutions (fan-out); their biases are zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def draw_as_mobilenet(network: nn.Module) -> None:
    """Draws He-normal convolutions (fan-out) and small linear layers, as MobileNetV2 does."""
    draw_convolutions(network)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)


def draw_plain(network: nn.Module) -> None:
    """Draws the weights of a network without norms He-normal (fan-in); its biases are zero."""
    for name, parameter in network.named_parameters():
        if name.endswith("weight"):
            nn.init.kaiming_normal_(parameter)
        else:
            nn.init.zeros_(parameter)
