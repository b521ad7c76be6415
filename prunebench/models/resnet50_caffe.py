"""ResNet-50 as first published, with strides on the first 1x1 convolution of a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import nn
from torchvision.models.resnet import Bottleneck, resnet50

from prunebench.models import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Resnet50Caffe(ModelSpec):
    """He et al. 2016 as released for Caffe; the schema of ``conf/model/imagenet_resnet50_caffe``.

    torchvision moves the stride of 2 to a block's 3x3 convolution, so that the first 1x1 computes
    four times as many outputs. Papers with 3.86 G multiply-adds (7.72 B FLOPs) use this network.
    """

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns the network, freshly initialised, for images of any size from 1 x 1."""
        network = resnet50(weights=None, num_classes=classes)
        stem = network.conv1
        if shape[0] != stem.in_channels:
            network.conv1 = nn.Conv2d(shape[0], 64, 7, 2, padding=3, bias=False)
            nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        for module in network.modules():
            if isinstance(module, Bottleneck):
                module.conv1.stride, module.conv2.stride = module.conv2.stride, (1, 1)
        return cast(nn.Module, network)
