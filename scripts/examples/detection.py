"""Prunes the backbone of a torchvision detector; outputs keep their sizes, so the heads fit."""

import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

import prunebench


def main() -> tuple[nn.Module, prunebench.Slim]:
    """Prunes the backbone inside its residual blocks, and runs the detector with it."""
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)
    detector = FasterRCNN(backbone, num_classes=3, min_size=64, max_size=64)
    dense = detector.backbone
    small = prunebench.prune(dense, torch.randn(1, 3, 64, 64), only="body.*", uniform=0.5)
    detector.backbone = small
    [found] = detector.eval()([torch.rand(3, 64, 64)])
    assert {"boxes", "labels", "scores"} <= found.keys()
    print(small.report)
    return dense, small


if __name__ == "__main__":
    main()
