"""DenseNets without bottlenecks and compression for small images, such as DenseNet-40."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunebench.errors import require
from prunebench.models import ModelSpec, require_size
from prunebench.models.initialisation import draw_convolutions

_SMALLEST = 8


class DenseLayer(nn.Module):
    """Batch norm, ReLU and a convolution whose maps are appended to its input."""

    def __init__(self, inputs: int, growth: int) -> None:
        """Appends `growth` maps."""
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns [n, inputs + growth, H, W] from [n, inputs, H, W]."""
        return torch.cat((x, self.conv1(self.relu(self.bn1(x)))), 1)


class Transition(nn.Module):
    """Batch norm, ReLU, a 1x1 convolution as wide as its input, and a 2x2 average."""

    def __init__(self, channels: int) -> None:
        """Keeps the number of `channels` (compression 1)."""
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns [n, channels, H / 2, W / 2] from [n, channels, H, W]."""
        return functional.avg_pool2d(self.conv1(self.relu(self.bn1(x))), 2)


def _block(inputs: int, layers: int, growth: int) -> nn.Sequential:
    return nn.Sequential(*(DenseLayer(inputs + i * growth, growth) for i in range(layers)))


class DensenetNetwork(nn.Module):
    """Stem, three dense blocks with transitions between, batch norm and ReLU, average, linear.

    Module names are those of Network Slimming's and HRank's DenseNet-40 (``dense2.0.bn1``).
    """

    def __init__(self, *, layers: int, growth: int, channels: int, classes: int) -> None:
        """Builds three blocks of `layers` layers with He initialisation."""
        super().__init__()
        stem, more = 2 * growth, layers * growth
        self.conv1 = nn.Conv2d(channels, stem, 3, padding=1, bias=False)
        self.dense1 = _block(stem, layers, growth)
        self.trans1 = Transition(stem + more)
        self.dense2 = _block(stem + more, layers, growth)
        self.trans2 = Transition(stem + 2 * more)
        self.dense3 = _block(stem + 2 * more, layers, growth)
        self.bn = nn.BatchNorm2d(stem + 3 * more)
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(stem + 3 * more, classes)
        draw_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits [n, classes] of images [n, C, H, W]."""
        x = self.trans1(self.dense1(self.conv1(x)))
        x = self.dense3(self.trans2(self.dense2(x)))
        logits: Tensor = self.fc(self.avgpool(self.relu(self.bn(x))).flatten(1))
        return logits


@dataclass(frozen=True, kw_only=True)
class Densenet(ModelSpec):
    """A DenseNet for CIFAR; the schema of ``conf/model/densenet40.yaml``.

    Attributes:
        depth: number of layers, 3 n + 4 for n convolutions in each of the three blocks.
        growth: maps that each of these appends; the stem has twice as many.
    """

    depth: int
    growth: int

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        fits = self.depth >= 7 and self.depth % 3 == 1
        require(fits, f"depth must be 3 n + 4 (7, 10, 13, ...), got {self.depth}")
        require(self.growth >= 1, f"growth must be at least 1, got {self.growth}")

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns the network for images of `shape`, at least 8 x 8."""
        require_size("this DenseNet", shape, _SMALLEST)
        layers = (self.depth - 4) // 3
        return DensenetNetwork(
            layers=layers, growth=self.growth, channels=shape[0], classes=classes
        )
