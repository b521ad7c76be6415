"""GoogLeNet for small images: nine inception blocks behind a 3x3 stem, as HRank prunes it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunebench.errors import require
from prunebench.models import ModelSpec, require_size

_STEM = 192
#: block -> widths of its branches: 1x1; 1x1, 3x3; 1x1, two 3x3 (in place of a 5x5); pooling, 1x1
_BLOCKS = {
    "a3": (64, 96, 128, 16, 32, 32),
    "b3": (128, 128, 192, 32, 96, 64),
    "a4": (192, 96, 208, 16, 48, 64),
    "b4": (160, 112, 224, 24, 64, 64),
    "c4": (128, 128, 256, 24, 64, 64),
    "d4": (112, 144, 288, 32, 64, 64),
    "e4": (256, 160, 320, 32, 128, 128),
    "a5": (256, 160, 320, 32, 128, 128),
    "b5": (384, 192, 384, 48, 128, 128),
}
#: block -> the pooling in front of it
_POOLED_BEFORE = {"a4": "maxpool1", "a5": "maxpool2"}
_SMALLEST = 8


def _layer(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class Inception(nn.Module):
    """Four branches side by side; names are those of HRank's public checkpoint."""

    def __init__(self, inputs: int, widths: tuple[int, ...]) -> None:
        """Builds branches with `widths`, which are ordered as in `_BLOCKS`."""
        super().__init__()
        one, before3, three, before5, five, pool = widths
        self.branch1x1 = nn.Sequential(*_layer(inputs, one, 1))
        self.branch3x3 = nn.Sequential(*_layer(inputs, before3, 1), *_layer(before3, three, 3))
        self.branch5x5 = nn.Sequential(
            *_layer(inputs, before5, 1), *_layer(before5, five, 3), *_layer(five, five, 3)
        )
        pooling = nn.MaxPool2d(3, stride=1, padding=1)
        self.branch_pool = nn.Sequential(pooling, *_layer(inputs, pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Returns [n, sum of the branches, H, W] from [n, inputs, H, W]."""
        branches = (self.branch1x1, self.branch3x3, self.branch5x5, self.branch_pool)
        return torch.cat([branch(x) for branch in branches], 1)


class GooglenetNetwork(nn.Module):
    """Stem, nine inception blocks with two poolings between, a global average, one linear layer."""

    def __init__(
        self, stem: int, blocks: dict[str, tuple[int, ...]], *, channels: int, classes: int
    ) -> None:
        """Builds blocks of the given widths; convolutions have biases, as in HRank's code."""
        super().__init__()
        self.pre_layers = nn.Sequential(*_layer(channels, stem, 3))
        outputs = [stem, *(w[0] + w[2] + w[4] + w[5] for w in blocks.values())]
        for inputs, (name, widths) in zip(outputs, blocks.items(), strict=False):
            self.add_module(f"inception_{name}", Inception(inputs, widths))
        for name in _POOLED_BEFORE.values():
            self.add_module(name, nn.MaxPool2d(3, stride=2, padding=1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(outputs[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits [n, classes] of images [n, C, H, W]."""
        x = self.pre_layers(x)
        for name in _BLOCKS:
            if name in _POOLED_BEFORE:
                x = self.get_submodule(_POOLED_BEFORE[name])(x)
            x = self.get_submodule(f"inception_{name}")(x)
        logits: Tensor = self.linear(self.avgpool(x).flatten(1))
        return logits


@dataclass(frozen=True, kw_only=True)
class Googlenet(ModelSpec):
    """A GoogLeNet for CIFAR; the schema of ``conf/model/googlenet.yaml``.

    Attributes:
        width: factor on every convolution's channels (rounded, at least 1).
    """

    width: float

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require(self.width > 0, f"width must be positive, got {self.width}")

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns the network for images of `shape`, at least 8 x 8."""
        require_size("googlenet", shape, _SMALLEST)
        blocks = {
            name: tuple(max(1, round(c * self.width)) for c in widths)
            for name, widths in _BLOCKS.items()
        }
        stem = max(1, round(_STEM * self.width))
        return GooglenetNetwork(stem, blocks, channels=shape[0], classes=classes)
