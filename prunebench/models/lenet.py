"""LeNet-5 in the shape that came with Caffe, which pruning papers compare on."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from prunebench.errors import require
from prunebench.models import ModelSpec

_SMALLEST = 16


@dataclass(frozen=True, kw_only=True)
class Lenet5(ModelSpec):
    """Two convolutions and two linear layers; the schema of ``conf/model/lenet5.yaml``."""

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns the network for images of `shape`, at least 16 x 16 (it does not pad)."""
        channels, height, width = shape
        require(
            min(height, width) >= _SMALLEST,
            f"model: lenet5 needs images of at least {_SMALLEST} x {_SMALLEST}, got "
            f"{height} x {width}; enlarge them (dataset=digits has dataset.size) or choose an MLP",
        )
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
        for name, parameter in network.named_parameters():
            if name.endswith("weight"):
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")
            else:
                nn.init.zeros_(parameter)
        return network
