from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import ShuffleNetV2

from prunebench.channels import GatherChannels, Plan, slim, trace


def test_a_gather_gives_zeros_for_missing_channels() -> None:
    x = torch.tensor([[float("nan"), 2.0, 3.0]])
    assert GatherChannels([-1, 2, 1])(x).tolist() == [[0.0, 3.0, 2.0]]


class Halves(nn.Module):
    """Exchanges two halves of channels, cut in either way."""

    def __init__(self, sizes: int | list[int]) -> None:
        super().__init__()
        self.a, self.b, self.sizes = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1), sizes

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        one, two = x.split(self.sizes, 1) if isinstance(self.sizes, list) else x.chunk(2, 1)
        return self.b(torch.cat([two, one], 1))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:The TorchScript type system")
@pytest.mark.parametrize("sizes", [2, [3, 5]])
def test_a_slim_network_whose_channels_were_parted_can_be_scripted(sizes: int | list[int]) -> None:
    network, images = Halves(sizes).eval(), torch.randn(2, 3, 4, 4)
    cmap = trace(network, images)
    slimmed = slim(network, cmap, Plan({"a": [0, 1, 4, 6, 7]}))
    assert any(isinstance(module, GatherChannels) for module in slimmed.modules())
    with torch.no_grad():
        assert torch.equal(torch.jit.script(slimmed)(images), slimmed(images))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:The TorchScript type system")
def test_a_slim_network_with_gathers_can_be_scripted() -> None:
    network = ShuffleNetV2([4, 2, 2], [24, 16, 32, 64, 128]).eval()
    images = torch.randn(2, 3, 32, 32)
    cmap = trace(network, images)
    slimmed = slim(network, cmap, Plan({g.name: range(0, g.size, 2) for g in cmap.groups}))
    assert any(isinstance(module, GatherChannels) for module in slimmed.modules())
    with torch.no_grad():
        assert torch.equal(torch.jit.script(slimmed)(images), slimmed(images))
