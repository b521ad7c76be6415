"""Finds and reads image files in one folder per class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunebench.datasets.decoding import rgb
from prunebench.datasets.stream import Unreadable
from prunebench.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

#: suffixes of files that torchvision takes for images
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class ImageFiles:
    """Reads images by the names of their files; a `Source`.

    Attributes:
        root: folder.
        names: paths below `root`, concatenated. A list of a million strings would be copied into
            every loader process, because reading a string changes its reference count.
        ends: int64 [n], where each name ends.
    """

    root: str
    names: bytes
    ends: np.ndarray[Any, np.dtype[np.int64]]

    @classmethod
    def of(cls, root: Path, names: Sequence[str]) -> ImageFiles:
        """Returns the images in the files `names` below `root`."""
        import numpy as np

        raw = [os.fsencode(name) for name in names]
        return cls(str(root), b"".join(raw), np.cumsum([len(name) for name in raw], dtype="int64"))

    def name(self, number: int) -> str:
        """Returns the path below `root` of image `number`."""
        begin = int(self.ends[number - 1]) if number else 0
        return os.fsdecode(self.names[begin : int(self.ends[number])])

    def read(self, number: int) -> Image:
        """Returns image `number` as Pillow's ``convert("RGB")`` gives it.

        Raises:
            Unreadable: it is damaged or missing.
        """
        return rgb(self._path(number), self.root)

    def content(self, number: int) -> bytes:
        """Returns the content of the file of image `number`.

        Raises:
            Unreadable: it does not exist.
        """
        try:
            return Path(self._path(number)).read_bytes()
        except OSError as error:
            raise Unreadable(error.strerror or type(error).__name__) from None

    def _path(self, number: int) -> str:
        return os.path.join(self.root, self.name(number))


def class_folders(folder: Path) -> list[str]:
    """Returns the names of the folders in `folder`, which are its classes, sorted."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def images_below(folder: Path) -> list[str]:
    """Returns the paths, relative to `folder`, of all images in it, in torchvision's order."""
    return list(_images(str(folder), ""))


def _images(root: str, below: str) -> Iterator[str]:
    with os.scandir(os.path.join(root, below)) as entries:
        found = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    yield from (
        os.path.join(below, e.name)
        for e in found
        if e.name.lower().endswith(ENDINGS) and not e.is_dir()
    )
    for entry in found:
        if entry.is_dir():
            yield from _images(root, os.path.join(below, entry.name))


def labelled(folder: Path, classes: Sequence[str]) -> tuple[list[str], list[int]]:
    """Returns the images of every class in `folder`, and their labels.

    Raises:
        DataError: the folder has other classes, or one of them has no images.
    """
    found = class_folders(folder)
    if found != list(classes):
        odd = sorted({*found} ^ {*classes})
        raise DataError(
            f"{folder} has {len(found)} classes and the training set {len(classes)}; they must be "
            f"the same, and '{odd[0]}' is in one of them only"
        )
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        images = images_below(folder / name)
        if not images:
            raise DataError(
                f"{folder / name} holds no images ({', '.join(ENDINGS)}); remove the class, or "
                "put its images there"
            )
        names += [os.path.join(name, image) for image in images]
        labels += [label] * len(images)
    return names, labels
