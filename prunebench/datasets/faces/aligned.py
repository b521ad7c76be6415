"""Reads aligned faces, all of one size; a narrower network sees the middle columns."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.datasets.decoding import rgb
from prunebench.datasets.stream import Stream, Unreadable
from prunebench.datasets.tree import ImageFiles
from prunebench.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from prunebench.datasets.stream import Loading, Source

#: height and width after the common alignment by five points
ALIGNED = (112, 112)


@dataclass(frozen=True)
class Columns:
    """Crops the middle columns of an image; a `View`.

    Attributes:
        width: number of columns.
        flip: whether it mirrors half of the images, drawn from torch's own generator.
    """

    width: int
    flip: bool = False

    def __call__(self, image: Image) -> Image:
        """Returns the middle columns of `image`, of full height."""
        from PIL import ImageOps

        if image.width != self.width:
            left = (image.width - self.width) // 2
            image = image.crop((left, 0, left + self.width, image.height))
        return ImageOps.mirror(image) if self.flip and _coin() else image


def _coin() -> bool:
    """Returns a random bool from torch's own generator."""
    import torch

    return bool(torch.rand(()) < 0.5)


@dataclass(frozen=True)
class Faces:
    """Reads faces from files below a folder; a `Source`.

    Attributes:
        files: the files.
        size: (height, width) that the network sees.
    """

    files: ImageFiles
    size: tuple[int, int]

    def name(self, number: int) -> str:
        """Returns the path below the folder."""
        return self.files.name(number)

    def read(self, number: int) -> Image:
        """Returns image `number`.

        Raises:
            Unreadable: it is damaged, missing, or of a size that must not be cropped.
        """
        return fitting(self.files.read(number), self.size)


def decoded(content: bytes, size: tuple[int, int]) -> Image:
    """Returns the image that `content` encodes.

    Raises:
        Unreadable: it is damaged, or of a size that must not be cropped to `size`.
    """
    return fitting(rgb(io.BytesIO(content)), size)


def fitting(image: Image, size: tuple[int, int]) -> Image:
    """Returns `image` if it has `size`, or if it is aligned and wider.

    Raises:
        Unreadable: neither holds.
    """
    found = (image.height, image.width)
    if found != size and not (found == ALIGNED and size[0] == found[0] and size[1] < found[1]):
        raise Unreadable(f"{found[0]} x {found[1]} is not {size[0]} x {size[1]}")
    return image


def stream(
    source: Source,
    numbers: Tensor,
    labels: Tensor,
    size: tuple[int, int],
    loading: Loading,
    *,
    flip: bool = False,
) -> Stream:
    """Returns images of `source` as a stream for a network that sees `size`.

    With `flip`, training images are mirrored at random.
    """
    return Stream(
        source=source,
        numbers=numbers,
        labels=labels,
        shape=(3, *size),
        training=Columns(size[1], flip),
        plain=Columns(size[1]),
        loading=loading,
    )


def try_one(source: Source, number: int, size: tuple[int, int]) -> None:
    """Reads one image as a check of all images of `source`.

    Raises:
        DataError: it is damaged, missing, or does not fit `size`.
    """
    try:
        source.read(number)
    except Unreadable as error:
        raise DataError(
            f"{source.name(number)}: {error}; dataset.image_size={list(size)} wants aligned faces "
            f"of that size, or the middle columns of {ALIGNED[0]} x {ALIGNED[1]}"
        ) from None
