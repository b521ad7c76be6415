"""GhostNet: 1x1 convolutions make half of a layer's maps, cheap depthwise ones the other half."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunebench.errors import require, require_choice
from prunebench.models import ModelSpec, require_size
from prunebench.models.initialisation import draw_as_mobilenet
from prunebench.models.mobilenet import STEMS, depthwise, divisible

_Row = tuple[int, int, int, bool, int]
#: (kernel, hidden channels, output channels, squeeze-and-excitation, stride) of each bottleneck
_ROWS: tuple[_Row, ...] = (
    (3, 16, 16, False, 1),
    (3, 48, 24, False, 2),
    (3, 72, 24, False, 1),
    (5, 72, 40, True, 2),
    (5, 120, 40, True, 1),
    (3, 240, 80, False, 2),
    (3, 200, 80, False, 1),
    (3, 184, 80, False, 1),
    (3, 184, 80, False, 1),
    (3, 480, 112, True, 1),
    (3, 672, 112, True, 1),
    (5, 672, 160, True, 2),
    (5, 960, 160, False, 1),
    (5, 960, 160, True, 1),
    (5, 960, 160, False, 1),
    (5, 960, 160, True, 1),
)
_STEM, _LAST, _HEAD = 16, 960, 1280
_SMALLEST = 16


class GhostModule(nn.Module):
    """A 1x1 convolution for the first half of the channels, a depthwise 3x3 on it for the rest."""

    def __init__(self, inputs: int, outputs: int, *, relu: bool) -> None:
        """Makes `outputs` channels, an even number."""
        super().__init__()
        half = outputs // 2
        self.primary_conv = nn.Sequential(
            nn.Conv2d(inputs, half, 1, bias=False), nn.BatchNorm2d(half)
        )
        self.cheap_operation = nn.Sequential(depthwise(half, 1), nn.BatchNorm2d(half))
        if relu:
            self.primary_conv.append(nn.ReLU(inplace=True))
            self.cheap_operation.append(nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        """Returns [n, outputs, H, W] from [n, inputs, H, W]."""
        primary = self.primary_conv(x)
        return torch.cat([primary, self.cheap_operation(primary)], 1)


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation: scales channels by two 1x1 layers on their averages."""

    def __init__(self, channels: int) -> None:
        """Squeezes to a quarter of the channels, in multiples of 4."""
        super().__init__()
        squeezed = divisible(channels / 4, 4)
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.conv_reduce = nn.Conv2d(channels, squeezed, 1)
        self.act1 = nn.ReLU(inplace=True)
        self.conv_expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Returns `x` with scaled channels."""
        gate = self.gate(self.conv_expand(self.act1(self.conv_reduce(self.avg_pool(x)))))
        out: Tensor = x * gate
        return out


class GhostBottleneck(nn.Module):
    """Ghost module, depthwise convolution if strided, excitation, ghost module, plus a shortcut.

    Module names are those of the authors' code, so that its checkpoints load.
    """

    def __init__(self, inputs: int, outputs: int, row: _Row, *, hidden: int, stride: int) -> None:
        """Projects the shortcut unless input and output have the same shape.

        A `row` with stride 2 has its depthwise convolution even where `stride` is 1.
        """
        super().__init__()
        kernel, _, _, excite, usual_stride = row
        strided = usual_stride > 1
        self.ghost1 = GhostModule(inputs, hidden, relu=True)
        self.conv_dw = depthwise(hidden, stride, kernel) if strided else nn.Identity()
        self.bn_dw = nn.BatchNorm2d(hidden) if strided else nn.Identity()
        self.se = SqueezeExcite(hidden) if excite else nn.Identity()
        self.ghost2 = GhostModule(hidden, outputs, relu=False)
        self.shortcut = nn.Sequential()
        if inputs != outputs or stride != 1:
            self.shortcut = nn.Sequential(
                depthwise(inputs, stride, kernel),
                nn.BatchNorm2d(inputs),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Returns [n, outputs, H / stride, W / stride] from [n, inputs, H, W]."""
        out = self.ghost2(self.se(self.bn_dw(self.conv_dw(self.ghost1(x)))))
        summed: Tensor = out + self.shortcut(x)
        return summed


class GhostnetNetwork(nn.Module):
    """Stem, 16 bottlenecks, a 1x1 convolution, a global average, a hidden layer, a classifier."""

    def __init__(
        self, width: float, *, strides: tuple[int, ...], channels: int, classes: int
    ) -> None:
        """Builds stem and bottlenecks with `strides` (stem first, then one per row)."""
        super().__init__()
        before = divisible(_STEM * width, 4)
        self.conv_stem = nn.Conv2d(channels, before, 3, strides[0], padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(before)
        self.act1 = nn.ReLU(inplace=True)
        rows = []
        for row, stride in zip(_ROWS, strides[1:], strict=True):
            hidden, after = (divisible(channels * width, 4) for channels in row[1:3])
            rows.append(GhostBottleneck(before, after, row, hidden=hidden, stride=stride))
            before = after
        self.blocks = nn.Sequential(*rows)
        last = divisible(_LAST * width, 4)
        self.conv_last = nn.Conv2d(before, last, 1, bias=False)
        self.bn_last = nn.BatchNorm2d(last)
        self.act_last = nn.ReLU(inplace=True)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.conv_head = nn.Conv2d(last, _HEAD, 1)
        self.act2 = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(_HEAD, classes)
        draw_as_mobilenet(self)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits [n, classes] of images [n, C, H, W]."""
        x = self.blocks(self.act1(self.bn1(self.conv_stem(x))))
        x = self.global_pool(self.act_last(self.bn_last(self.conv_last(x))))
        x = self.act2(self.conv_head(x)).flatten(1)
        logits: Tensor = self.classifier(self.dropout(x))
        return logits


@dataclass(frozen=True, kw_only=True)
class Ghostnet(ModelSpec):
    """A GhostNet; the schema of ``conf/model/{ghostnet,imagenet_ghostnet}.yaml``.

    Attributes:
        width: factor on all widths except the head's, rounded to multiples of 4.
        stem: ``cifar`` (stride 1 in the stem and in the first strided bottleneck) or ``imagenet``.
    """

    width: float
    stem: str

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require(self.width > 0, f"width must be positive, got {self.width}")
        require_choice("stem", self.stem, STEMS)

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns the network for images of `shape`, at least 16 x 16."""
        require_size("ghostnet", shape, _SMALLEST)
        strides = [2, *(row[4] for row in _ROWS)]
        if self.stem == "cifar":
            strides[0] = strides[2] = 1
        return GhostnetNetwork(
            self.width, strides=tuple(strides), channels=shape[0], classes=classes
        )
