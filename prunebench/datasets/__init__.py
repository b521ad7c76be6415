"""Loads data sets: each option of the group ``dataset`` is a frozen spec that returns `Data`.

Small sets are held in memory as `Arrays` (`in_memory` is their common base), large ones are read
when needed as a `stream.Stream` (`folder`, `faces`). Begin with `Data` and `DatasetSpec`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from prunebench.datasets.pairs import Pairs
from prunebench.datasets.stream import Damaged, Stream
from prunebench.datasets.views import Preset

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Arrays:
    """Holds images in memory.

    Attributes:
        images: uint8 [n, C, H, W].
        labels: int64 [n].
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one image."""
        c, h, w = self.images.shape[1:]
        return c, h, w

    def at(self, places: Tensor) -> Arrays:
        """Returns the images at `places`, in ascending order of place."""
        places = places.sort().values
        return Arrays(self.images[places], self.labels[places])


#: the images of one split, in memory or read when they are needed
Images: TypeAlias = Arrays | Stream


@dataclass(frozen=True)
class Data:
    """Holds the splits of a data set; `val` is cut from the training set, `test` selects nothing.

    Attributes:
        mean, std: per channel, in units of pixel / 255; networks get (pixel / 255 - mean) / std.
        crop_padding: zero padding of the random training crop in pixels; 0 = no crop.
        flip: whether training images are mirrored at random. This and `crop_padding` concern images
            in memory; a stream has its own augmentation.
        note: one line to print beside any table made from this data ("" if none).
        damaged: images of streams that could not be read so far.
        pairs: name -> verification set; `test` has the images of the first. Empty if `test` is
            classified.
    """

    name: str
    train: Images
    val: Images
    test: Images
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_padding: int = 0
    flip: bool = False
    note: str = ""
    damaged: Damaged = field(default_factory=Damaged)
    pairs: Mapping[str, Pairs] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one image."""
        return self.train.shape


@dataclass(frozen=True)
class DatasetSpec(ABC):
    """Says where a data set lies and how it is split; the schema of ``conf/dataset/*.yaml``."""

    @property
    def missing(self) -> str:
        """A message on files that `load` will not find; "" if none. Opens no file."""
        return ""

    @property
    def verifies(self) -> bool:
        """Whether the test is on pairs of faces; then a network must end in an embedding."""
        return False

    @property
    def files(self) -> Mapping[str, Path]:
        """Field -> file or folder that `load` reads without checking a published digest.

        Its contents, not the field's value, tell a run from others.
        """
        return {}

    def suited(self, preset: Preset | None) -> DatasetSpec:
        """Returns the spec with unset fields filled in to suit the model's weights.

        Args:
            preset: how the weights expect images; None if unknown.
        """
        return self

    @abstractmethod
    def load(self) -> Data:
        """Reads the splits, into memory or as streams.

        Raises:
            DataError: files are missing, truncated, corrupt or of the wrong shape.
        """
