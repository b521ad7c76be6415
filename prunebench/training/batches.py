"""Small data sets on the device: uint8 images, augmented and normalised a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from prunebench.datasets import Data, Split
from prunebench.reproducibility import generator
from prunebench.training import distributed


@dataclass(frozen=True)
class Draws:
    """What chance decides in one epoch, for its n images in their order.

    Attributes:
        order: int64 [n], a permutation of the images.
        rows, columns: int64 [n], offset of the crop in the padded image, in [0, 2 * padding].
        mirrored: bool [n].
    """

    order: Tensor
    rows: Tensor
    columns: Tensor
    mirrored: Tensor


def draw_epoch(n: int, data: Data, *, seed: int, stage: str, epoch: int) -> Draws:
    """Draws an epoch of `n` images on the CPU, so that every device sees the same images.

    A function of its arguments alone: a resumed run draws the same epoch again.
    """
    source = generator(seed, stage, "epoch", epoch)
    order = torch.randperm(n, generator=source)
    offsets = torch.randint(0, 2 * data.crop_padding + 1, (2, n), generator=source)
    coins = torch.randint(0, 2, (n,), generator=source).bool()
    return Draws(order, offsets[0], offsets[1], coins if data.flip else torch.zeros_like(coins))


def crop_and_mirror(images: Tensor, padding: int, draws: Draws) -> Tensor:
    """Returns each image's own random crop, mirrored where drawn.

    The border is black (pixel value 0), put on before normalising, as
    ``torchvision.transforms.RandomCrop(padding=...)`` on the raw image does.

    Args:
        images: [n, C, H, W].
        padding: pixels added on each side before the crop.
        draws: of these n images; `order` is not read.

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


def _mean_and_std(data: Data, device: torch.device) -> tuple[Tensor, Tensor]:
    """Both as float32 [1, C, 1, 1]."""
    mean, std = torch.tensor([data.mean, data.std], device=device).unbind()
    return mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)


def _normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """``(pixel / 255 - mean) / std`` of uint8 images, as float32 [n, C, H, W]."""
    # Contiguous on the way: broadcasting a channel over channels_last strides is slow on a CPU.
    floats = images.to(torch.float32, memory_format=torch.contiguous_format)
    return floats.div_(255).sub_(mean).div_(std)


class DeviceSplit:
    """One split of a data set, resident on a device as uint8."""

    def __init__(
        self, data: Data, split: Split, *, device: torch.device, channels_last: bool = False
    ) -> None:
        """Moves `split`, one of the splits of `data`, to `device`."""
        self.data = data
        self.device = device
        self.channels_last = channels_last
        self.images = split.images.to(device)
        self.labels = split.labels.to(device)
        self._mean, self._std = _mean_and_std(data, device)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def steps(self, batch_size: int) -> int:
        """Number of batches in an epoch.

        A last batch that leaves a process less than two images, which batch norm cannot take, is
        joined to the one before.
        """
        full, rest = divmod(len(self), batch_size)
        return full + (1 if rest >= 2 * distributed.size() or (rest and full == 0) else 0)

    def images_at(self, step: int, batch_size: int) -> int:
        """Number of images in an epoch's batch `step`, over all processes."""
        last = step == self.steps(batch_size) - 1
        return len(self) - step * batch_size if last else batch_size

    def training_batches(
        self, batch_size: int, *, seed: int, stage: str, epoch: int, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields an epoch's shuffled, augmented, normalised batches from step `start` on.

        Each image comes once; the last, smaller batch is kept. Of several processes each gets its
        part of the same batches. Nothing in here waits for the device after the first batch.
        """
        drawn = draw_epoch(len(self), self.data, seed=seed, stage=stage, epoch=epoch)
        drawn = Draws(*(part.to(self.device) for part in vars(drawn).values()))
        rank, size = distributed.rank(), distributed.size()
        for step in range(start, self.steps(batch_size)):
            begin = step * batch_size
            own = slice(begin + rank, begin + self.images_at(step, batch_size), size)
            part = Draws(*(drawn[own] for drawn in vars(drawn).values()))
            images = self.images.index_select(0, part.order)
            if self.data.crop_padding or self.data.flip:
                images = crop_and_mirror(images, self.data.crop_padding, part)
            yield self._floats(images), self.labels.index_select(0, part.order)

    def batches(
        self, batch_size: int, *, shared_out: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields normalised batches in stored order, never augmented.

        Args:
            batch_size: images per batch.
            shared_out: whether each process gets its own part of the batches, instead of all.
        """
        first, every = (distributed.rank(), distributed.size()) if shared_out else (0, 1)
        for start in range(first * batch_size, len(self), every * batch_size):
            end = start + batch_size
            yield self._floats(self.images[start:end]), self.labels[start:end]

    def sample(self, count: int, *, seed: int) -> tuple[Tensor, Tensor]:
        """Returns `count` (at most all) normalised, unaugmented images in a seeded random order."""
        order = torch.randperm(len(self), generator=generator(seed, "sample"))[:count]
        order = order.to(self.device)
        return self._floats(self.images[order]), self.labels[order]

    def _floats(self, images: Tensor) -> Tensor:
        """Normalised images in this split's memory format."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return _normalise(images, self._mean, self._std).contiguous(memory_format=layout)
