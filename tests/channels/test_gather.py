from __future__ import annotations

import pytest
import torch
from torchvision.models import shufflenet_v2_x0_5

from prunebench.channels import GatherChannels, Plan, slim, trace


def test_a_gather_gives_zeros_for_missing_channels() -> None:
    x = torch.tensor([[float("nan"), 2.0, 3.0]])
    assert GatherChannels([-1, 2, 1])(x).tolist() == [[0.0, 3.0, 2.0]]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:The TorchScript type system")
def test_a_slim_network_with_gathers_can_be_scripted() -> None:
    network, images = shufflenet_v2_x0_5(weights=None).eval(), torch.randn(2, 3, 32, 32)
    cmap = trace(network, images)
    slimmed = slim(network, cmap, Plan({g.name: range(0, g.size, 2) for g in cmap.groups}))
    assert any(isinstance(module, GatherChannels) for module in slimmed.modules())
    with torch.no_grad():
        assert torch.equal(torch.jit.script(slimmed)(images), slimmed(images))
