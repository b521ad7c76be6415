"""MobileNets: depthwise and 1x1 convolutions in turn (V1), in inverted residuals (V2)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn

from prunebench.errors import require, require_choice
from prunebench.models import ModelSpec, require_size
from prunebench.models.initialisation import draw_as_mobilenet

STEMS = ("cifar", "imagenet")
#: (output channels, stride of the depthwise convolution) of V1's blocks
_V1 = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)),
    *((512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1)),
)
#: (expansion, output channels, blocks, stride) of V2's stages
_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_SMALLEST = 16


def divisible(channels: float, by: int = 8) -> int:
    """Returns `channels` rounded to a multiple of `by`, never below nine tenths of it.

    Sandler et al. 2018, "MobileNetV2", and the models after it scale widths this way.
    """
    rounded = max(by, int(channels + by / 2) // by * by)
    return rounded if rounded >= 0.9 * channels else rounded + by


def depthwise(channels: int, stride: int, kernel: int = 3) -> nn.Conv2d:
    """Returns a depthwise convolution, padded so that stride 1 keeps the size."""
    return nn.Conv2d(
        channels, channels, kernel, stride, padding=kernel // 2, groups=channels, bias=False
    )


class SeparableBlock(nn.Sequential):
    """Depthwise 3x3, BN, ReLU, 1x1, BN, ReLU."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        """Names the six layers."""
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["depthwise"] = depthwise(inputs, stride)
        layers["bn1"] = nn.BatchNorm2d(inputs)
        layers["relu1"] = nn.ReLU(inplace=True)
        layers["pointwise"] = nn.Conv2d(inputs, outputs, 1, bias=False)
        layers["bn2"] = nn.BatchNorm2d(outputs)
        layers["relu2"] = nn.ReLU(inplace=True)
        super().__init__(layers)


class MobilenetV1Network(nn.Module):
    """MobileNetV1: a stem, 13 separable blocks, a global average, one linear layer."""

    def __init__(self, width: float, *, stem_stride: int, channels: int, classes: int) -> None:
        """Scales every width by `width`."""
        super().__init__()
        before = divisible(32 * width)
        self.conv = nn.Conv2d(channels, before, 3, stem_stride, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(before)
        self.relu = nn.ReLU(inplace=True)
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for place, (outputs, stride) in enumerate(_V1, start=1):
            after = divisible(outputs * width)
            blocks[f"block{place}"] = SeparableBlock(before, after, stride=stride)
            before = after
        self.features = nn.Sequential(blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(before, classes)
        draw_as_mobilenet(self)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits [n, classes] of images [n, C, H, W]."""
        x = self.features(self.relu(self.bn(self.conv(x))))
        logits: Tensor = self.classifier(self.avgpool(x).flatten(1))
        return logits


def _convolution(inputs: int, outputs: int, *, kernel: int, stride: int = 1) -> nn.Sequential:
    """Returns convolution, BN, ReLU6."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """Widening 1x1, depthwise 3x3, narrowing 1x1 without activation, plus the input if it fits."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, expansion: int) -> None:
        """Leaves the widening convolution out if `expansion` is 1."""
        super().__init__()
        hidden = inputs * expansion
        widening = [_convolution(inputs, hidden, kernel=1)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *widening,
            nn.Sequential(
                depthwise(hidden, stride), nn.BatchNorm2d(hidden), nn.ReLU6(inplace=True)
            ),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Returns [n, outputs, H / stride, W / stride] from [n, inputs, H, W]."""
        out: Tensor = self.conv(x)
        return x + out if self.adds else out


class MobilenetV2Network(nn.Module):
    """MobileNetV2 with torchvision's module names, so that such checkpoints load."""

    def __init__(
        self, width: float, *, strides: tuple[int, ...], channels: int, classes: int
    ) -> None:
        """Builds stem and stages with `strides` (stem first, then one per stage)."""
        super().__init__()
        before = divisible(32 * width)
        layers: list[nn.Module] = [_convolution(channels, before, kernel=3, stride=strides[0])]
        for (expansion, outputs, blocks, _), stride in zip(_V2, strides[1:], strict=True):
            after = divisible(outputs * width)
            for place in range(blocks):
                step = 1 if place else stride
                layers.append(InvertedResidual(before, after, stride=step, expansion=expansion))
                before = after
        last = divisible(1280 * max(1.0, width))
        layers.append(_convolution(before, last, kernel=1))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))
        draw_as_mobilenet(self)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits [n, classes] of images [n, C, H, W]."""
        logits: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return logits


@dataclass(frozen=True, kw_only=True)
class MobilenetV1(ModelSpec):
    """A MobileNetV1; the schema of ``conf/model/{mobilenet_v1,imagenet_mobilenet_v1}.yaml``.

    Attributes:
        width: factor on all widths, rounded to multiples of 8.
        stem: ``cifar`` (stride 1) or ``imagenet`` (stride 2).
    """

    width: float
    stem: str

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require(self.width > 0, f"width must be positive, got {self.width}")
        require_choice("stem", self.stem, STEMS)

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns the network for images of `shape`, at least 16 x 16."""
        require_size("mobilenet_v1", shape, _SMALLEST)
        stride = 1 if self.stem == "cifar" else 2
        return MobilenetV1Network(
            self.width, stem_stride=stride, channels=shape[0], classes=classes
        )


@dataclass(frozen=True, kw_only=True)
class MobilenetV2(ModelSpec):
    """A MobileNetV2; the schema of ``conf/model/mobilenet_v2.yaml``.

    Attributes:
        width: factor on all widths, rounded to multiples of 8; the last layer never shrinks.
        stem: ``cifar`` (stride 1 in the stem and the second stage) or ``imagenet`` (stride 2).
    """

    width: float
    stem: str

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require(self.width > 0, f"width must be positive, got {self.width}")
        require_choice("stem", self.stem, STEMS)

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns the network for images of `shape`, at least 16 x 16."""
        require_size("mobilenet_v2", shape, _SMALLEST)
        strides = [2, *(row[3] for row in _V2)]
        if self.stem == "cifar":
            strides[0] = strides[2] = 1
        return MobilenetV2Network(
            self.width, strides=tuple(strides), channels=shape[0], classes=classes
        )
