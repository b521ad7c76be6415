"""Defines what small data sets in memory share: normalising, augmenting and splitting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.datasets import Arrays, Data, DatasetSpec
from prunebench.errors import DataError, require

if TYPE_CHECKING:
    from torch import Tensor


def balanced_order(labels: Tensor, seed: int, *, as_many: bool = False) -> Tensor:
    """Returns a seeded order of all images of which every prefix is balanced over the classes.

    Args:
        labels: int64 [n].
        seed: draws the order; the same on every machine and version.
        as_many: whether balanced means equally many images of each class, as long as they last;
            otherwise in proportion to the classes' sizes. For classes of equal size both orders
            are the same.

    Returns:
        int64 [n], a permutation: its first k entries are a stratified sample of size k.
    """
    import numpy as np
    import torch

    # RandomState's stream will never change, unlike those of torch and numpy's newer generators
    shuffled = np.random.RandomState(seed).permutation(len(labels))
    classes = labels.numpy()[shuffled]
    by_class = np.argsort(classes, kind="stable")
    counts = np.bincount(classes)
    rank = np.arange(len(classes)) - np.repeat(np.cumsum(counts) - counts, counts)
    place = np.empty(len(classes))
    place[by_class] = rank if as_many else (rank + 0.5) / np.repeat(counts, counts)
    return torch.from_numpy(shuffled[np.argsort(place, kind="stable")])


@dataclass(frozen=True, kw_only=True)
class InMemory(DatasetSpec):
    """Declares the fields that all data sets in memory share.

    Attributes:
        mean, std: per channel (or one for all), in units of pixel / 255.
        crop_padding: zero padding of the random training crop in pixels; 0 = no crop.
        flip: whether training images are mirrored at random.
        val_size: number of images split off the training set for validation, classes balanced.
        train_size: number of the remaining training images to use, classes balanced; null = all.
        split_seed: draws the validation and training images.
    """

    mean: list[float]
    std: list[float]
    crop_padding: int
    flip: bool
    val_size: int
    train_size: int | None
    split_seed: int

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require(bool(self.mean), "mean must have one value per channel, or one for all")
        require(
            len(self.mean) == len(self.std),
            f"mean and std must be equally long, got {len(self.mean)} and {len(self.std)} values",
        )
        require(min(self.std) > 0, f"std must be positive, got {list(self.std)}")
        require(self.crop_padding >= 0, f"crop_padding must be at least 0, got {self.crop_padding}")
        require(self.val_size >= 0, f"val_size must not be negative, got {self.val_size}")
        require(
            self.train_size is None or self.train_size >= 1,
            f"train_size must be at least 1 or null, got {self.train_size}",
        )
        require(
            0 <= self.split_seed < 2**32,
            f"split_seed must lie in 0..2**32 - 1, got {self.split_seed}",
        )

    def data(self, name: str, train: Arrays, test: Arrays, *, classes: int, note: str = "") -> Data:
        """Splits the validation set off `train`, and returns all three splits; `test` is unchanged.

        Raises:
            DataError: the sizes or the number of channels do not fit the images.
        """
        wanted = self.val_size + (self.train_size or 1)
        if wanted > len(train):
            raise DataError(
                f"dataset {name}: val_size={self.val_size} and train_size={self.train_size} ask "
                f"for more than the {len(train)} training images; lower one of them"
            )
        channels = train.images.shape[1]
        if len(self.mean) not in (1, channels):
            raise DataError(
                f"dataset {name}: mean and std have {len(self.mean)} values, but the images have "
                f"{channels} channels; give {channels} values, or one for all"
            )
        order = balanced_order(train.labels, self.split_seed)
        stop = None if self.train_size is None else self.val_size + self.train_size
        repeat = channels // len(self.mean)
        return Data(
            name=name,
            train=train.at(order[self.val_size : stop]),
            val=train.at(order[: self.val_size]),
            test=test,
            classes=classes,
            mean=tuple(self.mean) * repeat,
            std=tuple(self.std) * repeat,
            crop_padding=self.crop_padding,
            flip=self.flip,
            note=note,
        )
