"""Defines data sets too large for memory: where images lie, and how each is read and viewed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

#: maps a stored image to one of the stream's shape
View: TypeAlias = "Callable[[Image], Image]"
#: where JPEG files are decoded
DECODERS = ("cpu", "gpu")


class Unreadable(Exception):
    """Raised for an image that is damaged or missing; its text says why."""


class Source(Protocol):
    """Reads images by number. It is sent to loader processes, so it must pickle and be small."""

    def read(self, number: int) -> Image:
        """Returns image `number`, decoded, in RGB.

        Raises:
            Unreadable: it is damaged or missing.
        """

    def name(self, number: int) -> str:
        """Returns the name of image `number` for the log and the report."""


class Files(Protocol):
    """Reads the undecoded files of images; a `Source` may offer this, too."""

    def content(self, number: int) -> bytes:
        """Returns the content of the file of image `number`.

        Raises:
            Unreadable: it does not exist.
        """


@dataclass(frozen=True, kw_only=True)
class Loading:
    """Says how images are read, without an effect on the result.

    Attributes:
        workers: processes that read and decode; 0 reads in the run's own.
        prefetch: batches that each of them reads ahead.
        allow_damaged: fraction of a split that may be unreadable.
    """

    workers: int
    prefetch: int
    allow_damaged: float


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Holds the images of one split, which are read when needed.

    Attributes:
        source: reads the images.
        numbers: int64 [n], the numbers in the source of this split's images.
        labels: int64 [n].
        shape: (C, H, W) of an image after either view.
        training: the view for training. It draws only from torch's own generator, which is seeded
            before each image.
        plain: the view without augmentation; draws nothing.
        loading: how images are read.
        files: the source of JPEG files if the run's device is to decode them; None leaves that to
            Pillow.
    """

    source: Source
    numbers: Tensor
    labels: Tensor
    shape: tuple[int, int, int]
    training: View
    plain: View
    loading: Loading
    files: Files | None = None

    def __len__(self) -> int:
        """Number of images, damaged ones included."""
        return len(self.labels)

    def at(self, places: Tensor) -> Stream:
        """Returns the images at `places`, in ascending order of place."""
        places = places.sort().values
        return replace(self, numbers=self.numbers[places], labels=self.labels[places])


class Damaged:
    """Collects the images that could not be read so far.

    Attributes:
        found: name -> why.
        tell: called with name and reason of each, once.
    """

    def __init__(self) -> None:
        """Starts empty."""
        self.found: dict[str, str] = {}
        self.tell: Callable[[str, str], None] = _ignore

    def add(self, name: str, why: str) -> None:
        """Records an image, and calls `tell` if it is new."""
        if name not in self.found:
            self.found[name] = why
            self.tell(name, why)


def _ignore(name: str, why: str) -> None:
    """Does nothing."""
