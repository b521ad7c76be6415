"""One split of a data set, as training, measuring and ranking ask for it.

Its two forms are `resident` (on the device) and `streamed` (read when needed); `batches` picks.
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
    """Normalised images and their labels, on a device.

    Attributes:
        data: the data set.
        shape: (C, H, W) of an image.
        device: where batches are.
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

        Each image comes once; the last, smaller batch is kept. What chance decides for an image is
        a function of (seed, stage, epoch, image). Of several processes each gets its part of the
        same batches.

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
            shared_out: whether each process gets its own part of the batches, instead of all.

        Raises:
            DataError: too many images are damaged.
        """

    @abstractmethod
    def sample(self, count: int, *, seed: int, balanced: bool = False) -> tuple[Sampled, Tensor]:
        """Returns `count` (at most all) normalised, unaugmented images in a seeded random order.

        Args:
            count: of images.
            seed: draws them.
            balanced: whether every beginning of the order holds as many of each class, as long as
                they last.

        Raises:
            DataError: too many images are damaged.
        """

    def _sample_order(self, seed: int, balanced: bool) -> Tensor:
        """Returns all places in the order in which they are drawn, int64 [len(self)] on the CPU."""
        if balanced:
            labels, own = self.labels.cpu(), seed_for(seed, "sample") % 2**32
            return balanced_order(labels, own, as_many=True)
        return torch.randperm(len(self), generator=generator(seed, "sample"))

    @abstractmethod
    def share_damage(self) -> None:
        """Lets all processes, which come by together, know which images the others could not read.

        Raises:
            DataError: together they are too many; in all processes at once.
        """

    def normalised(self, images: Tensor) -> Tensor:
        """``(pixel / 255 - mean) / std`` of uint8 images, float32, in this split's layout."""
        # contiguous on the way: broadcasting a channel over channels_last strides is slow on a CPU
        cpu = images.device.type == "cpu"
        layout = torch.contiguous_format if cpu else self._layout
        floats = images.to(torch.float32, memory_format=layout)
        floats = floats.div_(255).sub_(self._mean).div_(self._std)
        return floats.contiguous(memory_format=self._layout)


def steps(images: int, batch_size: int) -> int:
    """Returns the number of batches in an epoch of `images`.

    A last batch that leaves a process less than two images, which batch norm cannot take, is
    joined to the one before.
    """
    full, rest = divmod(images, batch_size)
    return full + (1 if rest >= 2 * distributed.size() or (rest and full == 0) else 0)


def images_at(step: int, images: int, batch_size: int) -> int:
    """Returns how many of an epoch's `images` are in its batch `step`, over all processes."""
    last = step == steps(images, batch_size) - 1
    return images - step * batch_size if last else batch_size


def own_parts(images: int, batch_size: int, start: int) -> Iterator[slice]:
    """Yields the places in an epoch's order that are this process's part of each batch.

    They begin with the batch of step `start`.
    """
    for step in range(start, steps(images, batch_size)):
        begin = step * batch_size
        end = begin + images_at(step, images, batch_size)
        yield slice(begin + distributed.rank(), end, distributed.size())


def starts(images: int, batch_size: int, *, shared_out: bool) -> range:
    """Returns where batches in stored order begin: all of them, or this process's own."""
    first, every = (distributed.rank(), distributed.size()) if shared_out else (0, 1)
    return range(first * batch_size, images, every * batch_size)
