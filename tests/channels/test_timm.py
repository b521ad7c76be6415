"""Further networks on which other tools were measured, from timm (the ``bench`` extra)."""

from __future__ import annotations

import pytest

NETWORKS = """
ghostnet_100 ghostnetv2_100 hrnet_w18_small dla34 res2net50_26w_4s repvgg_a0 cspresnet50
mobileone_s0 skresnet18 resnest14d vovnet39a inception_v4 xception41 dpn68 selecsls42 fastvit_t8
ese_vovnet19b_dw resnetv2_50 senet154 mixnet_s tinynet_e lcnet_050 hardcorenas_a darknet53
rexnet_100 fbnetc_100 convnext_atto efficientnet_lite0 mobilenetv3_small_100 resnet18
""".split()  # noqa: SIM905


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_slim_equals_mask(name: str, check_exact) -> None:
    timm = pytest.importorskip("timm")
    size = 75 if name == "inception_v4" else 64
    check_exact(timm.create_model(name, pretrained=False), (2, 3, size, size), most_kept=0.75)


@pytest.mark.slow
def test_standardised_weights_are_frozen(check_exact) -> None:
    timm = pytest.importorskip("timm")
    import torch

    from prunebench.channels import trace

    model = timm.create_model("nfnet_l0", pretrained=False)
    cmap = trace(model, torch.randn(1, 3, 64, 64))
    assert cmap.frozen["stem.conv1"] == "its weight is computed in the forward"
    check_exact(model, (2, 3, 64, 64), most_kept=0.95)
