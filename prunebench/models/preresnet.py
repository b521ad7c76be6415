"""Residual networks of pre-activation bottlenecks for small images, such as ResNet-164."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from prunebench.errors import require
from prunebench.models import ModelSpec, require_size
from prunebench.models.initialisation import draw_convolutions

_WIDTHS = (16, 32, 64)
_STEM = 16
_EXPANSION = 4
_SMALLEST = 8


class PreBottleneck(nn.Module):
    """Three convolutions, each behind batch norm and ReLU, plus a shortcut."""

    def __init__(self, inputs: int, width: int, *, stride: int) -> None:
        """Projects the shortcut, without a norm, if the width changes."""
        super().__init__()
        outputs = width * _EXPANSION
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if inputs != outputs:
            self.downsample = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns [n, 4 width, H / stride, W / stride] from [n, inputs, H, W]."""
        y = self.conv1(self.relu(self.bn1(x)))
        y = self.conv2(self.relu(self.bn2(y)))
        y = self.conv3(self.relu(self.bn3(y)))
        out: Tensor = y + self.downsample(x)
        return out


class PreResnetNetwork(nn.Module):
    """Stem, three stages of bottlenecks, batch norm and ReLU, a global average, one linear layer.

    Module names are those of Network Slimming's ResNet-164 (``layer2.0.bn1``), without its channel
    selection, which surgery does not need.
    """

    def __init__(
        self, widths: tuple[int, ...], *, blocks: int, channels: int, classes: int
    ) -> None:
        """Builds three stages of `blocks` blocks with He initialisation."""
        super().__init__()
        inputs = max(1, _STEM * widths[0] // _WIDTHS[0])
        self.conv1 = nn.Conv2d(channels, inputs, 3, padding=1, bias=False)
        stages = []
        for stage, width in enumerate(widths):
            row = []
            for place in range(blocks):
                stride = 2 if stage and not place else 1
                row.append(PreBottleneck(inputs, width, stride=stride))
                inputs = width * _EXPANSION
            stages.append(nn.Sequential(*row))
        self.layer1, self.layer2, self.layer3 = stages
        self.bn = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)
        draw_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits [n, classes] of images [n, C, H, W]."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        logits: Tensor = self.fc(self.avgpool(self.relu(self.bn(x))).flatten(1))
        return logits


@dataclass(frozen=True, kw_only=True)
class PreResnet(ModelSpec):
    """A pre-activation ResNet for CIFAR; the schema of ``conf/model/resnet164.yaml``.

    Attributes:
        depth: number of layers, 9 n + 2 for n blocks in each of the three stages.
        width: factor on the widths 16, 32, 64 (rounded, at least 1).
    """

    depth: int
    width: float

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        fits = self.depth >= 11 and self.depth % 9 == 2
        require(fits, f"depth must be 9 n + 2 (11, 20, 29, ...), got {self.depth}")
        require(self.width > 0, f"width must be positive, got {self.width}")

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns the network for images of `shape`, at least 8 x 8."""
        require_size("this ResNet", shape, _SMALLEST)
        widths = tuple(max(1, round(c * self.width)) for c in _WIDTHS)
        blocks = (self.depth - 2) // 9
        return PreResnetNetwork(widths, blocks=blocks, channels=shape[0], classes=classes)
