"""Norms without weights state the number of channels that they normalise."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from prunebench.channels import trace

NORMS = {
    "instance": lambda: nn.InstanceNorm2d(12),
    "batch": lambda: nn.BatchNorm2d(12, affine=False),
    "batch without statistics": lambda: nn.BatchNorm2d(12, affine=False, track_running_stats=False),
    "one group per channel": lambda: nn.GroupNorm(12, 12, affine=False),
}


def net(norm: nn.Module) -> nn.Sequential:
    last = nn.Conv2d(12, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 1)
    return nn.Sequential(nn.Conv2d(3, 12, 3), norm, nn.ReLU(), *last)


@pytest.mark.parametrize("name", NORMS)
def test_norms_without_weights_are_told(name: str, check_exact) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        slimmed = check_exact(net(NORMS[name]()), (2, 3, 8, 8))
    norm, left = slimmed[1], slimmed[0].out_channels
    stated = norm.num_channels if name == "one group per channel" else norm.num_features
    assert stated == left < 12


def test_a_group_norm_over_several_channels_needs_weights() -> None:
    cmap = trace(net(nn.GroupNorm(3, 12, affine=False)), torch.randn(1, 3, 8, 8))
    assert cmap.frozen["0"] == "a group norm without one weight per channel"
    assert [g.name for g in cmap.groups] == ["3"]
