"""Builds the views that crop a photograph for a network, at random or in its middle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunebench.datasets.stream import View

#: interpolations, as torchvision and Pillow name them
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
#: how an image is scaled before a square is cut out of it
FITS = ("shorter", "squeeze")
#: how training images are cut out
AUGMENTS = ("part", "square")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Says how a network that classifies photographs expects images.

    Attributes:
        size: side of the square that the network sees.
        crop: fraction of the shorter side that this square takes, in the middle of the image.
        interpolation: one of `INTERPOLATIONS`.
        mean, std: per channel, in units of pixel / 255.
    """

    size: int = 224
    crop: float = 0.875
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


def middle(size: int, crop: float, interpolation: str, fit: str) -> View:
    """Returns the view that scales an image (see `_fitted`) and crops its middle."""
    from torchvision.transforms import v2

    view: View = v2.Compose([_fitted(size, crop, interpolation, fit), v2.CenterCrop(size)])
    return view


def square_at_random(size: int, crop: float, interpolation: str, fit: str, flip: bool) -> View:
    """Returns the view that scales an image as `middle` does and crops a random square.

    With `flip`, half of the images are mirrored.
    """
    from torchvision.transforms import v2

    steps = [_fitted(size, crop, interpolation, fit), v2.RandomCrop(size)]
    view: View = v2.Compose([*steps, v2.RandomHorizontalFlip()] if flip else steps)
    return view


def _fitted(size: int, crop: float, interpolation: str, fit: str) -> View:
    """Returns the view that scales the shorter side, or both (``squeeze``), to ``size / crop``."""
    from torchvision.transforms import InterpolationMode, v2

    side = round(size / crop)
    to = [side, side] if fit == "squeeze" else [side]
    view: View = v2.Resize(to, InterpolationMode(interpolation))
    return view


def at_random(
    size: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    interpolation: str,
    flip: bool,
) -> View:
    """Returns the view that scales a random part of the image; `flip` mirrors half of the images.

    `scale` is the range of the part's share of the area, `ratio` that of its width over height;
    `size` is the side of the result.
    """
    from torchvision.transforms import InterpolationMode, v2

    part = v2.RandomResizedCrop(size, scale, ratio, InterpolationMode(interpolation))
    view: View = v2.Compose([part, v2.RandomHorizontalFlip()]) if flip else part
    return view
