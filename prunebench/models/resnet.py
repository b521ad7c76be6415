"""Residual networks of basic blocks for small images: the CIFAR ResNets and FOAD's variant."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn

from prunebench.channels import GatherChannels
from prunebench.errors import require, require_choice
from prunebench.models import ModelSpec, require_size

_WIDTHS = (16, 32, 64)
_SMALLEST = 8


class PadShortcut(nn.Module):
    """The shortcut of option A: every second pixel, padded with zero channels on either side.

    He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        """Writes the padding as an index, which channel surgery knows how to cut."""
        super().__init__()
        left = (outputs - inputs) // 2
        right = outputs - inputs - left
        self.gather = GatherChannels([-1] * left + list(range(inputs)) + [-1] * right)

    def forward(self, x: Tensor) -> Tensor:
        """Returns [n, outputs, H / 2, W / 2] from [n, inputs, H, W]."""
        padded: Tensor = self.gather(x[:, :, ::2, ::2])
        return padded


def _projection(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)]


class BasicBlock(nn.Module):
    """Two convolutions plus a shortcut; ReLU after the sum."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, shortcut: str) -> None:
        """Uses `shortcut` (``A`` or ``B``) if the stride is not 1, else the identity."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 and shortcut == "A":
            self.shortcut = PadShortcut(inputs, outputs)
        elif stride != 1:
            self.shortcut = nn.Sequential(*_projection(inputs, outputs, stride))
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Returns [n, outputs, H / stride, W / stride] from [n, inputs, H, W]."""
        residual = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        out: Tensor = self.relu2(residual + self.shortcut(x))
        return out


class ResnetNetwork(nn.Module):
    """Stem, three stages of basic blocks, a global average, one linear layer.

    Module names are those of the widely used public CIFAR checkpoints (``layer2.0.conv1``), so
    that these load.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        *,
        blocks: int,
        shortcut: str,
        channels: int,
        classes: int,
    ) -> None:
        """Builds three stages of `blocks` blocks with He initialisation."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        before = (widths[0], *widths)
        stages = [
            nn.Sequential(
                *(
                    BasicBlock(
                        width if place else before[stage],
                        width,
                        stride=2 if stage and not place else 1,
                        shortcut=shortcut,
                    )
                    for place in range(blocks)
                )
            )
            for stage, width in enumerate(widths)
        ]
        self.layer1, self.layer2, self.layer3 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(widths[-1], classes)
        _he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits [n, classes] of images [n, C, H, W]."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(self.avgpool(x).flatten(1))
        return logits


class FoadBlock(nn.Module):
    """Two convolutions plus a shortcut that ends in its own ReLU; no ReLU after the sum.

    The middle width is that of the block's input, so the second convolution widens.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        """Projects the shortcut if the stride is not 1."""
        super().__init__()
        self.baseNet = nn.Sequential(
            nn.Conv2d(inputs, inputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        before = _projection(inputs, outputs, stride) if stride != 1 else []
        # not in place: without a projection its input is that of the other branch, too
        self.shortcut = nn.Sequential(*before, nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Returns [n, outputs, H / stride, W / stride] from [n, inputs, H, W]."""
        out: Tensor = self.baseNet(x) + self.shortcut(x)
        return out


class Resnet56FoadNetwork(nn.Module):
    """ResNet-56 as the authors of FOAD trained it; module names are those of their checkpoint."""

    def __init__(self, *, channels: int, classes: int) -> None:
        """Builds three stages of nine blocks with He initialisation."""
        super().__init__()
        width = _WIDTHS[0]
        stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["C1"] = nn.Sequential(stem, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        inputs = width
        for stage, width in enumerate(_WIDTHS, start=1):
            for place in range(1, 10):
                stride = 2 if stage > 1 and place == 1 else 1
                layers[f"BasicBlock_{stage}_{place}"] = FoadBlock(inputs, width, stride=stride)
                inputs = width
        self.features = nn.Sequential(layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)
        _he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits [n, classes] of images [n, C, H, W]."""
        logits: Tensor = self.fc(self.avgpool(self.features(x)).flatten(1))
        return logits


def _he_init(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)


@dataclass(frozen=True, kw_only=True)
class Resnet(ModelSpec):
    """A ResNet for CIFAR; the schema of ``conf/model/resnet{20,32,44,56,110}.yaml``.

    Attributes:
        depth: number of layers, 6 n + 2 for n blocks in each of the three stages.
        shortcut: ``A`` (stride and zero channels) or ``B`` (1x1 projection and BN).
        width: factor on the widths 16, 32, 64 (rounded, at least 1).
    """

    depth: int
    shortcut: str
    width: float

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        fits = self.depth >= 8 and self.depth % 6 == 2
        require(fits, f"depth must be 6 n + 2 (8, 14, 20, ...), got {self.depth}")
        require_choice("shortcut", self.shortcut, ("A", "B"))
        require(self.width > 0, f"width must be positive, got {self.width}")

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns the network for images of `shape`, at least 8 x 8."""
        require_size("this ResNet", shape, _SMALLEST)
        return ResnetNetwork(
            tuple(max(1, round(c * self.width)) for c in _WIDTHS),
            blocks=(self.depth - 2) // 6,
            shortcut=self.shortcut,
            channels=shape[0],
            classes=classes,
        )


@dataclass(frozen=True, kw_only=True)
class Resnet56Foad(ModelSpec):
    """FOAD's own ResNet-56; the schema of ``conf/model/resnet56_foad.yaml``."""

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns the network for images of `shape`, at least 8 x 8."""
        require_size("this ResNet", shape, _SMALLEST)
        return Resnet56FoadNetwork(channels=shape[0], classes=classes)
