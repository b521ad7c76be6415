"""How far a slim network may be from the masked one: by type and depth."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

import prunebench
from prunebench.channels import Plan, agreement, slim, trace


class Auto(nn.Module):
    """A float32 network that runs in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.net = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.net(x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_network_of_any_type_is_judged_by_one_that_is_exact_enough(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=4).to(dtype).eval()
    images = torch.randn(2, 3, 32, 32, dtype=dtype)
    cmap = trace(network, images)
    plan = Plan({group.name: range(0, group.size, 2) for group in cmap.groups})
    slimmed = slim(network, cmap, plan)
    found = agreement(network, slimmed, cmap, plan, images)
    half = torch.finfo(dtype).bits == 16
    steps = 8 if dtype == torch.float32 else 2**20
    assert found.exact
    assert found.dtype == ("float64" if half else str(dtype)[6:])
    assert found.tolerance == pytest.approx(
        steps * torch.finfo(getattr(torch, found.dtype)).eps * 13**0.5
    )
    with torch.no_grad():
        slimmed.layer1[0].conv1.weight[0] *= 1.01
    assert not agreement(network, slimmed, cmap, plan, images).exact
    assert prunebench.prune(network, images, macs=0.5).conv1.weight.dtype == dtype


def test_autocast_is_seen_through() -> None:
    torch.manual_seed(0)
    network, images = Auto().eval(), torch.randn(2, 3, 32, 32)
    cmap = trace(network, images)
    plan = Plan({group.name: range(0, group.size, 2) for group in cmap.groups})
    slimmed = slim(network, cmap, plan)
    assert agreement(network, slimmed, cmap, plan, images).exact
    with torch.no_grad():
        slimmed.net.layer1[0].conv1.weight[0] *= 1.01
    assert not agreement(network, slimmed, cmap, plan, images).exact


def test_what_only_runs_in_its_own_type_is_judged_by_its_rounding() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1).half(), nn.Conv2d(8, 2, 1).half()

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.relu(self.a(x.half())))

    network, images = Half().eval(), torch.randn(2, 3, 8, 8)
    cmap = trace(network, images)
    found = agreement(
        network, slim(network, cmap, Plan({"a": [0, 3]})), cmap, Plan({"a": [0, 3]}), images
    )
    assert (found.exact, found.dtype) == (True, "float16")
    assert found.tolerance == pytest.approx(8 * 2**-10 * 2**0.5)
