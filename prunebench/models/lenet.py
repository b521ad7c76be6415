"""LeNet-5 with the widths of Caffe's example, which pruning papers use."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from prunebench.models import ModelSpec, require_size
from prunebench.models.initialisation import draw_plain

_SMALLEST = 16


@dataclass(frozen=True, kw_only=True)
class Lenet5(ModelSpec):
    """A LeNet-5: two convolutions, two linear layers; the schema of ``conf/model/lenet5.yaml``."""

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns the network for images of `shape`, at least 16 x 16 (it does not pad)."""
        channels, height, width = shape
        require_size("lenet5", shape, _SMALLEST)
        left = [((side - 4) // 2 - 4) // 2 for side in (height, width)]
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv1=nn.Conv2d(channels, 20, 5),
            relu1=nn.ReLU(inplace=True),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(20, 50, 5),
            relu2=nn.ReLU(inplace=True),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(50 * left[0] * left[1], 500),
            relu3=nn.ReLU(inplace=True),
            fc2=nn.Linear(500, classes),
        )
        network = nn.Sequential(layers)
        draw_plain(network)
        return network
