"""Images that are too many for memory: where they lie, and what becomes of each when it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

#: from an image as it was stored to one of the stream's shape
View: TypeAlias = "Callable[[Image], Image]"
#: what decodes JPEG files
DECODERS = ("cpu", "gpu")


class Unreadable(Exception):
    """One image that is damaged or not there; says why."""


class Source(Protocol):
    """Where images lie. It travels to loader processes, so it must pickle and be small."""

    def read(self, number: int) -> Image:
        """Returns image `number`, decoded, in RGB.

        Raises:
            Unreadable: it is damaged or not there.
        """

    def name(self, number: int) -> str:
        """Returns what the log and the report call image `number`."""


class Files(Protocol):
    """A source that also tells what the files hold."""

    def content(self, number: int) -> bytes:
        """Returns the file of image `number`.

        Raises:
            Unreadable: it is not there.
        """


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How images are read; none of it changes what is read.

    Attributes:
        workers: processes that read and decode; 0 reads in the run's own.
        prefetch: batches that each of them is ahead.
        allow_damaged: fraction of a split that may be unreadable.
    """

    workers: int
    prefetch: int
    allow_damaged: float


@dataclass(frozen=True, kw_only=True)
class Stream:
    """The images of one split, read when they are needed.

    Attributes:
        source: where they lie.
        numbers: int64 [n], which of the source's images these are.
        labels: int64 [n].
        shape: (C, H, W) of an image behind either view.
        training: draws from torch's own generator, which is seeded before each image, and from
            nothing else.
        plain: draws nothing.
        loading: how they are read.
        files: the source once more, if the run's device is to decode the JPEG files of it; None
            leaves that to Pillow.
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
        """Returns the images at `places`, ascending."""
        places = places.sort().values
        return replace(self, numbers=self.numbers[places], labels=self.labels[places])


class Damaged:
    """The images that could not be read so far.

    Attributes:
        found: name -> why.
        tell: receives name and reason of each, once.
    """

    def __init__(self) -> None:
        """Starts with none."""
        self.found: dict[str, str] = {}
        self.tell: Callable[[str, str], None] = _ignore

    def add(self, name: str, why: str) -> None:
        """Takes note of one, and tells if it is new."""
        if name not in self.found:
            self.found[name] = why
            self.tell(name, why)


def _ignore(name: str, why: str) -> None:
    """Tells nobody."""
