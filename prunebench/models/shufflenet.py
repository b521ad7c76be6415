"""ShuffleNets: channel shuffles between grouped (V1) or halved (V2) convolutions.

Shuffles are `GatherChannels`, so that surgery has only an index to rewrite.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunebench.channels import GatherChannels
from prunebench.errors import require, require_choice
from prunebench.models import ModelSpec, require_size
from prunebench.models.initialisation import draw_as_mobilenet
from prunebench.models.mobilenet import STEMS, depthwise

_STEM = 24
_REPEATS = (4, 8, 4)
#: V1: groups -> widths of the three stages
_V1 = {
    1: (144, 288, 576),
    2: (200, 400, 800),
    3: (240, 480, 960),
    4: (272, 544, 1088),
    8: (384, 768, 1536),
}
#: V2: width multiplier -> widths of the three stages and of the last convolution
_V2 = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}
_SMALLEST = 16


def transposition(channels: int, groups: int) -> list[int]:
    """Returns the index of V1's shuffle as published: first channels of all groups, then second.

    It ties nearly all channels of a layer, so that few can be cut; see `rotation`.
    """
    size = channels // groups
    return [g * size + k for k in range(size) for g in range(groups)]


def rotation(channels: int, groups: int) -> list[int]:
    """Returns the index of our shuffle: channel k of group b goes to place k of group b + k.

    Zhang et al. 2018, "ShuffleNet", transpose (group, place) instead. Both give every group an
    equal share (within one channel) of every group before it, and the order within a group means
    nothing, so networks of both kinds have the same family and counts. But here the k-th channels
    of all groups stay together: they can be cut together, which leaves groups equally wide. Behind
    the transposition nearly all channels of a layer would have to go at once.
    """
    size = channels // groups
    return [(g - k) % groups * size + k for g in range(groups) for k in range(size)]


#: V1's shuffle -> its index from channels and groups
SHUFFLES = {"rotate": rotation, "transpose": transposition}


def interleaving(channels: int) -> list[int]:
    """Returns the index of V2's shuffle: one channel of each half in turn."""
    half = channels // 2
    return [place for k in range(half) for place in (k, half + k)]


class GroupedUnit(nn.Module):
    """V1's unit: grouped 1x1, shuffle, depthwise 3x3, grouped 1x1; then sum or concat, and ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        stride: int,
        groups: int,
        first_groups: int,
        shuffle: str,
    ) -> None:
        """With stride 2 the branch is concatenated behind the pooled input, not added."""
        super().__init__()
        middle = outputs // 4
        made = outputs - inputs if stride == 2 else outputs
        self.conv1 = nn.Conv2d(inputs, middle, 1, groups=first_groups, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.relu1 = nn.ReLU(inplace=True)
        self.shuffle = GatherChannels(SHUFFLES[shuffle](middle, groups))
        self.depthwise = depthwise(middle, stride)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, made, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(made)
        self.pool = nn.AvgPool2d(3, 2, padding=1) if stride == 2 else None
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Returns [n, outputs, H / stride, W / stride] from [n, inputs, H, W]."""
        branch = self.shuffle(self.relu1(self.bn1(self.conv1(x))))
        branch = self.bn3(self.conv2(self.bn2(self.depthwise(branch))))
        out = x + branch if self.pool is None else torch.cat([self.pool(x), branch], 1)
        activated: Tensor = self.relu2(out)
        return activated


class ShufflenetV1Network(nn.Module):
    """Stem, three stages of 4, 8 and 4 units, a global average, one linear layer."""

    def __init__(
        self, groups: int, *, shuffle: str, stem: str, channels: int, classes: int
    ) -> None:
        """Builds the stages; the first 1x1 convolution is not grouped: it has too few inputs."""
        super().__init__()
        stride = 1 if stem == "cifar" else 2
        self.conv1 = nn.Conv2d(channels, _STEM, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if stem == "cifar" else nn.MaxPool2d(3, 2, padding=1)
        before = _STEM
        stages = []
        for number, (width, repeats) in enumerate(zip(_V1[groups], _REPEATS, strict=True)):
            units = []
            for place in range(repeats):
                units.append(
                    GroupedUnit(
                        before,
                        width,
                        stride=1 if place else 2,
                        groups=groups,
                        first_groups=groups if number or place else 1,
                        shuffle=shuffle,
                    )
                )
                before = width
            stages.append(nn.Sequential(*units))
        self.stage2, self.stage3, self.stage4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(before, classes)
        draw_as_mobilenet(self)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits [n, classes] of images [n, C, H, W]."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.stage4(self.stage3(self.stage2(x)))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def _pointwise(inputs: int, outputs: int) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, 1, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class HalvedUnit(nn.Module):
    """V2's unit: computes half of the channels and passes the rest on; both with stride 2."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        """Names the branches as torchvision does."""
        super().__init__()
        half = outputs // 2
        self.left: nn.Module = nn.Identity()
        self.right: nn.Module = nn.Identity()
        if stride == 1:
            self.left = GatherChannels(range(half))
            self.right = GatherChannels(range(half, outputs))
        self.branch1 = nn.Sequential()
        if stride == 2:
            self.branch1 = nn.Sequential(
                depthwise(inputs, stride), nn.BatchNorm2d(inputs), *_pointwise(inputs, half)
            )
        self.branch2 = nn.Sequential(
            *_pointwise(inputs if stride == 2 else half, half),
            depthwise(half, stride),
            nn.BatchNorm2d(half),
            *_pointwise(half, half),
        )
        self.shuffle = GatherChannels(interleaving(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Returns [n, outputs, H / stride, W / stride] from [n, inputs, H, W]."""
        branches = [self.branch1(self.left(x)), self.branch2(self.right(x))]
        out: Tensor = self.shuffle(torch.cat(branches, 1))
        return out


class ShufflenetV2Network(nn.Module):
    """Stem, three stages of 4, 8 and 4 units, a 1x1 convolution, a global average, one linear."""

    def __init__(self, widths: tuple[int, ...], *, stem: str, channels: int, classes: int) -> None:
        """Names modules as torchvision does."""
        super().__init__()
        stride = 1 if stem == "cifar" else 2
        self.conv1 = nn.Sequential(
            nn.Conv2d(channels, _STEM, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(_STEM),
            nn.ReLU(inplace=True),
        )
        self.maxpool = nn.Identity() if stem == "cifar" else nn.MaxPool2d(3, 2, padding=1)
        before = _STEM
        stages = []
        for width, repeats in zip(widths, _REPEATS, strict=False):
            units = [HalvedUnit(before, width, stride=2)]
            units += [HalvedUnit(width, width, stride=1) for _ in range(repeats - 1)]
            stages.append(nn.Sequential(*units))
            before = width
        self.stage2, self.stage3, self.stage4 = stages
        self.conv5 = nn.Sequential(*_pointwise(before, widths[-1]))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[-1], classes)
        draw_as_mobilenet(self)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits [n, classes] of images [n, C, H, W]."""
        x = self.stage4(self.stage3(self.stage2(self.maxpool(self.conv1(x)))))
        logits: Tensor = self.fc(self.avgpool(self.conv5(x)).flatten(1))
        return logits


@dataclass(frozen=True, kw_only=True)
class ShufflenetV1(ModelSpec):
    """A ShuffleNetV1; the schema of ``conf/model/{shufflenet_v1,imagenet_shufflenet_v1}.yaml``.

    Attributes:
        groups: groups of the 1x1 convolutions, 1, 2, 3, 4 or 8; each number has its own widths.
        stem: ``cifar`` (stride 1, no pooling) or ``imagenet`` (stride 2, max pooling).
        shuffle: ``rotate``, behind which channels can be cut, or ``transpose``, as published.
    """

    groups: int
    stem: str
    shuffle: str = "rotate"

    def __post_init__(self) -> None:
        """Raises ConfigError for an unknown choice."""
        require(self.groups in _V1, f"groups must be one of {', '.join(map(str, _V1))}")
        require_choice("shuffle", self.shuffle, SHUFFLES)
        require_choice("stem", self.stem, STEMS)

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns the network for images of `shape`, at least 16 x 16."""
        require_size("shufflenet_v1", shape, _SMALLEST)
        return ShufflenetV1Network(
            self.groups,
            shuffle=self.shuffle,
            stem=self.stem,
            channels=shape[0],
            classes=classes,
        )


@dataclass(frozen=True, kw_only=True)
class ShufflenetV2(ModelSpec):
    """A ShuffleNetV2; the schema of ``conf/model/shufflenet_v2.yaml``.

    Attributes:
        width: 0.5, 1.0, 1.5 or 2.0; each has its own table of widths.
        stem: ``cifar`` (stride 1, no pooling) or ``imagenet`` (stride 2, max pooling).
    """

    width: float
    stem: str

    def __post_init__(self) -> None:
        """Raises ConfigError for an unknown choice."""
        require(
            self.width in _V2, f"width must be one of {', '.join(map(str, _V2))}, got {self.width}"
        )
        require_choice("stem", self.stem, STEMS)

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns the network for images of `shape`, at least 16 x 16."""
        require_size("shufflenet_v2", shape, _SMALLEST)
        return ShufflenetV2Network(
            _V2[self.width], stem=self.stem, channels=shape[0], classes=classes
        )
