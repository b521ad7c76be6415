"""Keeps small data sets on the device as uint8; augments and normalises them batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from prunebench.datasets import Arrays, Data
from prunebench.reproducibility import generator
from prunebench.training.split import Split, own_parts, starts


@dataclass(frozen=True)
class Draws:
    """Holds the random choices of one epoch, for its n images in their order.

    Attributes:
        order: int64 [n], a permutation of the images.
        rows, columns: int64 [n], offset of the crop in the padded image, in [0, 2 * padding].
        mirrored: bool [n].
    """

    order: Tensor
    rows: Tensor
    columns: Tensor
    mirrored: Tensor

    def part(self, images: slice) -> Draws:
        """Returns the draws for some of the images."""
        return Draws(*(drawn[images] for drawn in vars(self).values()))

    def to(self, device: torch.device) -> Draws:
        """Returns the draws on `device`."""
        return Draws(*(drawn.to(device) for drawn in vars(self).values()))


def draw_epoch(n: int, data: Data, *, seed: int, stage: str, epoch: int) -> Draws:
    """Draws an epoch of `n` images on the CPU, so that every device sees the same images.

    The result depends only on the arguments: a resumed run draws the same epoch again.
    """
    source = generator(seed, stage, "epoch", epoch)
    order = torch.randperm(n, generator=source)
    offsets = torch.randint(0, 2 * data.crop_padding + 1, (2, n), generator=source)
    coins = torch.randint(0, 2, (n,), generator=source).bool()
    return Draws(order, offsets[0], offsets[1], coins if data.flip else torch.zeros_like(coins))


def crop_and_mirror(images: Tensor, padding: int, draws: Draws) -> Tensor:
    """Returns a random crop of each image, mirrored where drawn.

    The border is black (pixel value 0) before normalising, as with
    ``torchvision.transforms.RandomCrop(padding=...)`` on the raw image.

    Args:
        images: [n, C, H, W].
        padding: pixels added on each side before the crop.
        draws: of these n images; `order` is not used.

    Returns:
        [n, C, H, W] of the same dtype, in channels_last strides.
    """
    n, _, height, width = images.shape
    device = images.device
    across = torch.arange(width, device=device)
    across = torch.where(draws.mirrored[:, None], width - 1 - across, across)
    rows = draws.rows[:, None] + torch.arange(height, device=device)
    columns = draws.columns[:, None] + across
    padded = functional.pad(images, (padding,) * 4)
    which = torch.arange(n, device=device)[:, None, None]
    return padded[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class ResidentSplit(Split):
    """Serves one split that lies on the device as uint8."""

    def __init__(
        self, data: Data, images: Arrays, *, device: torch.device, channels_last: bool = False
    ) -> None:
        """Moves `images`, one of the splits of `data`, to `device`."""
        super().__init__(data, images, device=device, channels_last=channels_last)
        self.images = images.images.to(device)
        self.labels = images.labels.to(device)

    def training_batches(
        self, batch_size: int, *, seed: int, stage: str, epoch: int, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Split`. After the first batch nothing here waits for the device."""
        drawn = draw_epoch(len(self), self.data, seed=seed, stage=stage, epoch=epoch)
        drawn = drawn.to(self.device)
        for part in own_parts(len(self), batch_size, start):
            yield self.drawn(drawn.part(part))

    def drawn(self, part: Draws) -> tuple[Tensor, Tensor]:
        """Returns the drawn batch, augmented and normalised, and its labels."""
        images, labels = self.pixels(part)
        return self.normalised(images), labels

    def pixels(self, part: Draws) -> tuple[Tensor, Tensor]:
        """Returns the same as `drawn` before normalising, as uint8."""
        images = self.images.index_select(0, part.order)
        if self.data.crop_padding or self.data.flip:
            images = crop_and_mirror(images, self.data.crop_padding, part)
        return images, self.labels.index_select(0, part.order)

    def batches(
        self, batch_size: int, *, shared_out: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Split`."""
        for start in starts(len(self), batch_size, shared_out=shared_out):
            end = start + batch_size
            yield self.normalised(self.images[start:end]), self.labels[start:end]

    def sample(
        self, count: int, *, seed: int, balanced: bool = False
    ) -> tuple[ResidentRows, Tensor]:
        """See `Split`."""
        order = self._sample_order(seed, balanced)[:count].to(self.device)
        return ResidentRows(self, order), self.labels[order]

    def stored(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the unaugmented images at `places`, normalised, and their labels."""
        return self.floats(places), self.labels[places]

    def share_damage(self) -> None:
        """See `Split`. Nothing to do: all images were read when the data set was loaded."""

    def floats(self, places: Tensor) -> Tensor:
        """Returns the unaugmented images at `places`, normalised."""
        return self.normalised(self.images[places])


@dataclass(frozen=True)
class ResidentRows:
    """Holds a sample of images; normalises what is sliced, since floats take four times the memory.

    Attributes:
        split: which has the images.
        places: int64 [n], in the split.
    """

    split: ResidentSplit
    places: Tensor

    def __len__(self) -> int:
        """Number of images."""
        return len(self.places)

    def __getitem__(self, rows: slice) -> Tensor:
        """Returns images normalised, float32 [k, C, H, W] on the split's device."""
        return self.split.floats(self.places[rows])

    def augmented(self, seed: int) -> AugmentedRows:
        """Returns the images augmented as in training."""
        data = self.split.data
        drawn = draw_epoch(len(self), data, seed=seed, stage="sample", epoch=0).to(
            self.places.device
        )
        return AugmentedRows(self.split, replace(drawn, order=self.places))


@dataclass(frozen=True)
class AugmentedRows:
    """Holds a sample of images, augmented as in training when they are sliced.

    Attributes:
        split: which has the images.
        draws: of these images.
    """

    split: ResidentSplit
    draws: Draws

    def __len__(self) -> int:
        """Number of images."""
        return len(self.draws.order)

    def __getitem__(self, rows: slice) -> Tensor:
        """Returns images augmented and normalised, float32 [k, C, H, W] on the split's device."""
        return self.split.drawn(self.draws.part(rows))[0]
