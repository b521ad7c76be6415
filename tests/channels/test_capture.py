"""Channels that are read and edited during a forward, compared with masks and plain hooks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import vgg

from prunebench.channels import Plan, capture, edit, slim, trace


@pytest.mark.parametrize("point", ["activation", "consumer"])
def test_a_gate_at_a_point_is_the_mask(point: str) -> None:
    model = torchvision.models.resnet18(weights=None).eval()
    example = torch.randn(2, 3, 32, 32)
    cmap = trace(model, example)
    group = cmap.group("layer2.0.conv1")
    plan = Plan({group.name: range(0, group.size, 2)})
    gate = torch.zeros(group.size)
    gate[::2] = 1
    gate.requires_grad_()
    change: dict[str, Callable[[Tensor], Tensor]] = {
        group.name: lambda x: x * gate.view(1, -1, 1, 1)
    }
    with edit(model, cmap, point, change):
        gated = model(example)
    gated.sum().backward()
    assert gate.grad is not None and gate.grad[1::2].any()
    with torch.no_grad():
        torch.testing.assert_close(gated, slim(model, cmap, plan)(example), rtol=1e-4, atol=1e-5)
        assert not torch.equal(model(example), gated), "the edit outlived its context"


def test_points_are_the_tensors_a_hook_would_see() -> None:
    features = vgg.make_layers(vgg.cfgs["A"], batch_norm=True)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(512 * 49, 4))
    model = nn.Sequential(OrderedDict(features=features, head=head)).eval()
    example = torch.randn(2, 3, 32, 32)
    seen = {}
    for at in (2, 3):  # the first ReLU (in place) and the max pool behind it
        model.features[at].register_forward_hook(
            lambda m, a, out, at=at: seen.__setitem__(at, out.detach().clone())
        )
    cmap = trace(model, example)
    last = cmap.groups[-1]
    assert torch.equal(
        capture(model, cmap, example, cmap.groups, "activation")["features.0"], seen[2]
    )
    assert torch.equal(capture(model, cmap, example, cmap.groups, "block")["features.0"], seen[3])
    assert capture(model, cmap, example, [last], "consumer")[last.name].shape == (2, 512, 49, 1)
