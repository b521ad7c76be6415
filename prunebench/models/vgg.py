"""VGGs for small images: 13 or 16 convolutions, with or without batch norms, one linear layer."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn

from prunebench.errors import require
from prunebench.models import ModelSpec, require_size
from prunebench.models.initialisation import draw_convolutions

#: convolution widths between two poolings, for width factor 1
_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_STAGES_19 = (*_STAGES[:2], *((width,) * 4 for width in (256, 512, 512)))
_SMALLEST = 2 ** (len(_STAGES) - 1)


class VggNetwork(nn.Module):
    """Stages of (conv 3x3, BN, ReLU), max poolings between, a global average, one linear layer."""

    def __init__(
        self,
        stages: tuple[tuple[int, ...], ...],
        *,
        channels: int,
        classes: int,
        norm: bool = True,
        hidden: int | None = None,
    ) -> None:
        """Names layers after the paper: ``features.conv3_2`` is the second of the third stage.

        Args:
            stages: convolution widths between two poolings.
            channels: channels of the images.
            classes: outputs of the last layer.
            norm: whether batch norms follow the convolutions, which then have no biases.
            hidden: width of a linear layer with ReLU before the last; None for none.
        """
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for stage, widths in enumerate(stages, start=1):
            for place, width in enumerate(widths, start=1):
                name = f"{stage}_{place}"
                layers[f"conv{name}"] = nn.Conv2d(channels, width, 3, padding=1, bias=not norm)
                if norm:
                    layers[f"bn{name}"] = nn.BatchNorm2d(width)
                layers[f"relu{name}"] = nn.ReLU(inplace=True)
                channels = width
            if stage < len(stages):
                layers[f"pool{stage}"] = nn.MaxPool2d(2)
        self.features = nn.Sequential(layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.hidden: nn.Module | None = None
        if hidden is not None:
            self.hidden = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(inplace=True))
        self.classifier = nn.Linear(hidden or channels, classes)
        draw_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits [n, classes] of images [n, C, H, W]."""
        features = self.avgpool(self.features(x)).flatten(1)
        if self.hidden is not None:
            features = self.hidden(features)
        logits: Tensor = self.classifier(features)
        return logits


@dataclass(frozen=True, kw_only=True)
class Vgg16(ModelSpec):
    """A VGG-16 for CIFAR; the schema of ``conf/model/vgg16.yaml``.

    Attributes:
        width: factor on every convolution's channels (rounded, at least 1).
        hidden: width of a linear layer with ReLU before the last; None for none.
    """

    width: float
    hidden: int | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require(self.width > 0, f"width must be positive, got {self.width}")
        require(
            self.hidden is None or self.hidden >= 1,
            f"hidden must be at least 1, or null, got {self.hidden}",
        )

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns the network for images of `shape`, at least 16 x 16 (the four poolings)."""
        return _vgg(_STAGES, shape, classes, factor=self.width, norm=True, hidden=self.hidden)


@dataclass(frozen=True, kw_only=True)
class Vgg19(ModelSpec):
    """A VGG-19 for CIFAR; the schema of ``conf/model/vgg19.yaml``.

    Attributes:
        width: factor on every convolution's channels (rounded, at least 1).
    """

    width: float

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require(self.width > 0, f"width must be positive, got {self.width}")

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns the network for images of `shape`, at least 16 x 16 (the four poolings)."""
        return _vgg(_STAGES_19, shape, classes, factor=self.width, norm=True)


@dataclass(frozen=True, kw_only=True)
class Vgg16Gap(ModelSpec):
    """A VGG-16 without batch norms; the schema of ``conf/model/vgg16_gap.yaml``.

    Attributes:
        width: factor on every convolution's channels (rounded, at least 1).
    """

    width: float

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require(self.width > 0, f"width must be positive, got {self.width}")

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Returns the network for images of `shape`, at least 16 x 16 (the four poolings)."""
        return _vgg(_STAGES, shape, classes, factor=self.width, norm=False)


def _vgg(
    widths: tuple[tuple[int, ...], ...],
    shape: tuple[int, int, int],
    classes: int,
    *,
    factor: float,
    norm: bool,
    hidden: int | None = None,
) -> nn.Module:
    require_size("VGG", shape, _SMALLEST)
    stages = tuple(tuple(max(1, round(c * factor)) for c in stage) for stage in widths)
    return VggNetwork(stages, channels=shape[0], classes=classes, norm=norm, hidden=hidden)
