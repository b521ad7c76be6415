"""MobileFaceNet: small networks that turn an aligned face into an embedding."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from prunebench.errors import require
from prunebench.models import ModelSpec, require_size
from prunebench.models.initialisation import draw_convolutions
from prunebench.models.mobilenet import depthwise

#: (expansion, output channels, blocks, stride) of the bottlenecks
_STAGES = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
#: widths before and behind the bottlenecks
_FIRST, _LAST = 64, 512
#: total stride: image pixels per pixel of the last maps
_STRIDE = 16


class ConvBlock(nn.Module):
    """Convolution, BN and, unless `linear`, PReLU."""

    def __init__(self, conv: nn.Conv2d, *, linear: bool = False) -> None:
        """Puts BN and PReLU behind `conv`."""
        super().__init__()
        self.conv = conv
        self.bn = nn.BatchNorm2d(conv.out_channels)
        self.prelu = nn.Identity() if linear else nn.PReLU(conv.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Returns maps [n, outputs, ...] of maps [n, inputs, H, W]."""
        out: Tensor = self.prelu(self.bn(self.conv(x)))
        return out


class Bottleneck(nn.Module):
    """Widening 1x1, depthwise 3x3, narrowing 1x1 without activation, plus the input if it fits."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, expansion: int) -> None:
        """Widens to ``expansion * inputs`` channels."""
        super().__init__()
        hidden = expansion * inputs
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.PReLU(hidden),
            depthwise(hidden, stride),
            nn.BatchNorm2d(hidden),
            nn.PReLU(hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Returns [n, outputs, H / stride, W / stride] from [n, inputs, H, W]."""
        out: Tensor = self.conv(x)
        return x + out if self.adds else out


class MobilefacenetNetwork(nn.Module):
    """Stem, 15 bottlenecks, a depthwise convolution as large as the last maps, the embedding.

    Names of modules are those of github.com/Xiaoccer/MobileFaceNet_Pytorch, whose weights load.
    """

    def __init__(self, shape: tuple[int, int, int], *, embedding: int) -> None:
        """Builds for images of `shape` (C, H, W)."""
        super().__init__()
        channels, height, width = shape
        self.conv1 = ConvBlock(nn.Conv2d(channels, _FIRST, 3, 2, padding=1, bias=False))
        self.dw_conv1 = ConvBlock(depthwise(_FIRST, 1))
        blocks, before = list[nn.Module](), _FIRST
        for expansion, after, count, stride in _STAGES:
            for place in range(count):
                step = 1 if place else stride
                blocks.append(Bottleneck(before, after, stride=step, expansion=expansion))
                before = after
        self.blocks = nn.Sequential(*blocks)
        self.conv2 = ConvBlock(nn.Conv2d(before, _LAST, 1, bias=False))
        whole = (-(-height // _STRIDE), -(-width // _STRIDE))
        over_all = nn.Conv2d(_LAST, _LAST, whole, groups=_LAST, bias=False)
        self.linear7 = ConvBlock(over_all, linear=True)
        self.linear1 = ConvBlock(nn.Conv2d(_LAST, embedding, 1, bias=False), linear=True)
        self.flatten = nn.Flatten()
        draw_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Returns embeddings [n, embedding], not normalised, of images [n, C, H, W]."""
        x = self.conv2(self.blocks(self.dw_conv1(self.conv1(x))))
        embedding: Tensor = self.flatten(self.linear1(self.linear7(x)))
        return embedding


@dataclass(frozen=True, kw_only=True)
class Mobilefacenet(ModelSpec):
    """A MobileFaceNet; the schema of ``conf/model/mobilefacenet.yaml``.

    Attributes:
        embedding: size of the embedding.
    """

    embedding: int

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require(self.embedding >= 2, f"embedding must be at least 2, got {self.embedding}")

    @property
    def embeds(self) -> bool:
        """Whether the network ends in an embedding."""
        return True

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns the network for images of `shape`, at least 32 x 32; `classes` is not used."""
        require_size("mobilefacenet", shape, 2 * _STRIDE)
        return MobilefacenetNetwork(shape, embedding=self.embedding)
