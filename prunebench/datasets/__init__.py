"""Datasets: each option of the dataset group is a frozen spec that loads its splits."""

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
    """Images held in memory.

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
        """Returns the images at `places`, ascending."""
        places = places.sort().values
        return Arrays(self.images[places], self.labels[places])


#: the images of one split, in memory or read when they are needed
Images: TypeAlias = Arrays | Stream


@dataclass(frozen=True)
class Data:
    """What a run learns from: `val` is cut from the training set, `test` selects nothing.

    Attributes:
        mean, std: per channel, in units of pixel / 255; (pixel / 255 - mean) / std is fed.
        crop_padding: zero padding of the random training crop in pixels; 0 = no crop.
        flip: whether training images are mirrored at random. Of images in memory, both: a stream
            says itself how its images are augmented.
        note: one line that must stand beside any table made from this data ("" if none).
        damaged: images of streams that could not be read so far.
        pairs: name -> verification set, the one that `test` has the images of first; none where
            `test` is classified.
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
    """Where a dataset lies and how it is split; the schema of ``conf/dataset/*.yaml``."""

    @property
    def missing(self) -> str:
        """Which files `load` will not find, and what to do about it; "" if none. Reads none."""
        return ""

    @property
    def verifies(self) -> bool:
        """Whether what is tested is pairs of faces; then a network must end in an embedding."""
        return False

    @property
    def files(self) -> Mapping[str, Path]:
        """Field -> file or folder that `load` will read and check against no published digest.

        What such a file holds tells a run from others, in the place of the field's value.
        """
        return {}

    def suited(self, preset: Preset | None) -> DatasetSpec:
        """Returns this as the model's weights want to see it, where nothing else is asked for.

        Args:
            preset: None where the weights do not say.
        """
        return self

    @abstractmethod
    def load(self) -> Data:
        """Reads the splits, into memory or as streams.

        Raises:
            DataError: files are missing, truncated, corrupt or of the wrong shape.
        """
