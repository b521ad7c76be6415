"""How much a slim network may differ from the masked one, by dtype and depth."""

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


class Grid(nn.Module):
    """Adds a grid that it makes when the size of the image is another one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 1)
        self.grid = torch.zeros(1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.grid.shape[-2:] != x.shape[-2:]:
            self.grid = torch.ones(x.shape[-2:]).cumsum(0)
        out: Tensor = self.head(x + self.grid)
        return out


def test_what_becomes_of_a_tensor_that_the_network_keeps_is_not_what_was_traced() -> None:
    model, x = Grid().eval(), torch.rand(2, 3, 8, 8)
    other = Grid().eval()
    other.load_state_dict(model.state_dict())
    for network in (model, other):
        network.conv.register_forward_hook(lambda *_: None)  # so that copies are looked at
        network(x)  # whose grid is kept
    cmap = trace(model, x)
    plan = Plan({"conv": [0, 2, 5]})
    small = slim(model, cmap, plan)
    model.grid.fill_(torch.nan)
    assert prunebench.channels.verify(other, small, cmap, plan, x) < 1e-6
