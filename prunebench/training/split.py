"""Defines how training, measuring and ranking read one split of a data set.

There are two implementations: `resident` (on the device) and `streamed` (read when needed).
`batches.split_on` chooses between them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from prunebench.contracts import Sampled
from prunebench.datasets import Data, Images
from prunebench.datasets.in_memory import balanced_order
from prunebench.reproducibility import generator, seed_for
from prunebench.training import distributed


class Split(ABC):
    """Serves normalised images and their labels on a device.

    Attributes:
        data: the data set.
        shape: (C, H, W) of an image.
        device: where batches are.
        labels: int64 [n], of all images.
    """

    def __init__(
        self, data: Data, images: Images, *, device: torch.device, channels_last: bool = False
    ) -> None:
        """Serves `images`, one of the splits of `data`."""
        self.data = data
        self.shape = images.shape
        self.device = device
        self.labels = images.labels
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        mean, std = torch.tensor([data.mean, data.std], device=device).unbind()
        self._mean, self._std = mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    @abstractmethod
    def training_batches(
        self, batch_size: int, *, seed: int, stage: str, epoch: int, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields an epoch's shuffled, augmented, normalised batches from step `start` on.

        Each image comes once, and the smaller last batch is kept. The augmentation of an image
        depends only on (seed, stage, epoch, image). With several processes, each gets its part of
        every batch.

        Raises:
            DataError: too many images are damaged.
        """

    @abstractmethod
    def batches(
        self, batch_size: int, *, shared_out: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields normalised batches in stored order, never augmented.

        Args:
            batch_size: images per batch.
            shared_out: whether each process gets some of the batches instead of all.

        Raises:
            DataError: too many images are damaged.
        """

    @abstractmethod
    def sample(self, count: int, *, seed: int, balanced: bool = False) -> tuple[Sampled, Tensor]:
        """Returns `count` (at most all) normalised, unaugmented images in a seeded random order.

        Args:
            count: number of images.
            seed: determines the order.
            balanced: whether the first k images, for every k, are spread evenly over the classes,
                as long as these have images left.

        Raises:
            DataError: too many images are damaged.
        """

    def _sample_order(self, seed: int, balanced: bool) -> Tensor:
        """Returns all places in the order in which `sample` takes them, int64 [n] on the CPU."""
        if balanced:
            labels, own = self.labels.cpu(), seed_for(seed, "sample") % 2**32
            return balanced_order(labels, own, as_many=True)
        return torch.randperm(len(self), generator=generator(seed, "sample"))

    @abstractmethod
    def share_damage(self) -> None:
        """Tells all processes which images the others could not read; all must call it together.

        Raises:
            DataError: together they are too many; raised in all processes at once.
        """

    def normalised(self, images: Tensor) -> Tensor:
        """Returns ``(pixel / 255 - mean) / std`` of uint8 images, float32, in this layout."""
        # on a CPU, broadcasting over the channels of a channels_last tensor is slow
        cpu = images.device.type == "cpu"
        layout = torch.contiguous_format if cpu else self._layout
        floats = images.to(torch.float32, memory_format=layout)
        floats = floats.div_(255).sub_(self._mean).div_(self._std)
        return floats.contiguous(memory_format=self._layout)


def steps(images: int, batch_size: int) -> int:
    """Returns the number of batches in an epoch of `images`.

    A last batch with fewer than two images per process, too few for batch norm, is joined to the
    one before.
    """
    full, rest = divmod(images, batch_size)
    return full + (1 if rest >= 2 * distributed.size() or (rest and full == 0) else 0)


def images_at(step: int, images: int, batch_size: int) -> int:
    """Returns how many of the epoch's `images` are in batch `step`, over all processes."""
    last = step == steps(images, batch_size) - 1
    return images - step * batch_size if last else batch_size


def own_parts(images: int, batch_size: int, start: int) -> Iterator[slice]:
    """Yields this process's part of each batch from `start` on, as a slice of the epoch's order."""
    for step in range(start, steps(images, batch_size)):
        begin = step * batch_size
        end = begin + images_at(step, images, batch_size)
        yield slice(begin + distributed.rank(), end, distributed.size())


def starts(images: int, batch_size: int, *, shared_out: bool) -> range:
    """Returns where batches in stored order begin: all of them, or only this process's."""
    first, every = (distributed.rank(), distributed.size()) if shared_out else (0, 1)
    return range(first * batch_size, images, every * batch_size)
