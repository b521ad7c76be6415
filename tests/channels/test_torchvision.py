"""The slimmed network computes what the masked one does, for every CNN family of torchvision."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

FAMILIES = {
    "alexnet": 64,
    "vgg11": 32,
    "vgg13_bn": 32,
    "resnet18": 32,
    "resnet50": 32,
    "resnext50_32x4d": 32,
    "wide_resnet50_2": 32,
    "densenet121": 32,
    "googlenet": 64,
    "inception_v3": 75,
    "squeezenet1_1": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "mnasnet0_5": 32,
    "shufflenet_v2_x0_5": 32,
    "efficientnet_b0": 32,
    "efficientnet_v2_s": 32,
    "regnet_x_400mf": 32,
    "regnet_y_400mf": 32,
    "convnext_tiny": 32,
}
HEAVY = {"wide_resnet50_2", "efficientnet_v2_s", "inception_v3", "convnext_tiny"}


def build(name: str) -> nn.Module:
    more = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    if name in ("googlenet", "inception_v3"):
        more["aux_logits"] = False
    make = getattr(torchvision.models, name)
    if name.startswith(("vgg", "alexnet")):  # the 100 million weights of the head add nothing
        with torch.device("meta"):
            model: nn.Module = make(weights=None)
        for layer in model.features.to_empty(device="cpu"):
            getattr(layer, "reset_parameters", bool)()
        inputs = 512 * 49 if name.startswith("vgg") else 256 * 36
        model.classifier = nn.Sequential(
            nn.Linear(inputs, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 10)
        )
        return model
    return make(weights=None, num_classes=10, **more)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in HEAVY else n for n in FAMILIES],
)
def test_slim_equals_mask(name: str, check_exact) -> None:
    size = FAMILIES[name]
    check_exact(build(name), (2, 3, size, size), most_kept=0.6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet101", "resnet152", "densenet201", "vgg16_bn", "vgg11_bn"])
def test_slim_equals_mask_deep(name: str, check_exact) -> None:
    check_exact(build(name), (2, 3, 32, 32), most_kept=0.6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "kept"),
    [("swin_t", 64, 0.9), ("vit_b_16", 224, 0.9), ("maxvit_t", 224, 0.9), ("swin_v2_t", 64, 1.0)],
)
def test_transformers_freeze_what_attention_holds(name: str, size: int, kept: float) -> None:
    from prunebench.channels import Plan, slim, trace, verify

    model = getattr(torchvision.models, name)(weights=None).eval()
    cmap = trace(model, torch.randn(1, 3, size, size))
    assert cmap.frozen, "attention must be listed as frozen"
    assert all(reason for reason in cmap.frozen.values())
    plan = Plan({g.name: range(0, g.size, 2) for g in cmap.groups})
    slimmed = slim(model, cmap, plan)
    assert sum(p.numel() for p in slimmed.parameters()) <= kept * cmap.params(Plan({}))
    assert verify(model, slimmed, cmap, plan, torch.randn(2, 3, size, size)) < 1e-4
