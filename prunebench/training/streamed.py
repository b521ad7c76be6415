"""Serves large data sets: loader processes read, decode and augment images ahead of time.

Images are uint8 until they are on the device, where they are normalised.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from prunebench.datasets import Data
from prunebench.datasets.stream import Stream
from prunebench.errors import ConfigError, DataError, TrainingError
from prunebench.interruption import SIGNALS, stop_if_asked
from prunebench.reproducibility import generator
from prunebench.training import distributed
from prunebench.training.readers import Batch, Fetcher, Loaded, Reader
from prunebench.training.split import Split, own_parts, starts

#: number of images that a loader process reads at a time for a sample
SAMPLE_BATCH = 16
#: bytes of a sample that are kept in memory; further images are read whenever they are sliced
SAMPLE_BYTES = 1 << 29


class Order(Sampler[Batch]):
    """Holds the batches that the loader reads next; they can be replaced."""

    def __init__(self) -> None:
        """Starts without batches."""
        self.batches: Iterable[Batch] = ()

    def __iter__(self) -> Iterator[Batch]:
        """Yields the batches."""
        return iter(self.batches)


class StreamedSplit(Split):
    """Serves one split whose images are read when they are needed."""

    def __init__(
        self, data: Data, images: Stream, *, device: torch.device, channels_last: bool = False
    ) -> None:
        """Serves `images`, one of the splits of `data`; loaders start with the first batch.

        Raises:
            ConfigError: the GPU is to decode, and `device` is none.
        """
        super().__init__(data, images, device=device, channels_last=channels_last)
        self.stream = images
        self._unread: set[str] = set()
        self._unshared: list[tuple[str, str]] = []
        self._order = Order()
        loading = images.loading
        if images.files is not None and device.type != "cuda":
            raise ConfigError(
                "dataset.decode=gpu: JPEG files are decoded by a CUDA device, and this run is on "
                f"{device.type}; leave it at dataset.decode=cpu"
            )
        self._reader = Reader(images) if images.files is None else Fetcher(images, images.files)
        self._loader = DataLoader(
            self._reader,
            batch_size=None,  # each key of the sampler is a whole batch
            sampler=self._order,
            num_workers=loading.workers,
            prefetch_factor=loading.prefetch if loading.workers else None,
            persistent_workers=loading.workers > 0,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # the default would draw from torch's global generator
            worker_init_fn=_leave_signals_to_the_run,
        )

    def training_batches(
        self, batch_size: int, *, seed: int, stage: str, epoch: int, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Split`."""
        order = torch.randperm(len(self), generator=generator(seed, stage, "epoch", epoch))
        wanted = (
            Batch(order[part], (seed, stage, epoch))
            for part in own_parts(len(self), batch_size, start)
        )
        for images, labels in self._read(wanted, together=True):
            if not len(labels):
                raise DataError(
                    f"dataset {self.data.name}: none of the images of a training batch can be "
                    f"read ({', '.join(sorted(self._unread)[:3])} ...); mend or remove them"
                )
            yield self.normalised(images), labels

    def batches(
        self, batch_size: int, *, shared_out: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Split`."""
        wanted = (
            Batch(torch.arange(begin, min(begin + batch_size, len(self))))
            for begin in starts(len(self), batch_size, shared_out=shared_out)
        )
        for images, labels in self._read(wanted, together=shared_out):
            if len(labels):
                yield self.normalised(images), labels

    def sample(
        self, count: int, *, seed: int, balanced: bool = False
    ) -> tuple[StreamedRows, Tensor]:
        """See `Split`. A damaged image is replaced by the next one of the order."""
        order = self._sample_order(seed, balanced)
        rows, asked = StreamedRows(self), 0
        while len(rows) < min(count, len(self)) and asked < len(self):
            wanted = order[asked : asked + count - len(rows)]
            asked += len(wanted)
            for part in self._loaded(Batch(some) for some in torch.split(wanted, SAMPLE_BATCH)):
                rows.add(part)
        return rows, self.labels[rows.places].to(self.device)

    def read(self, places: Tensor, draw: tuple[int, str, int] | None = None) -> Tensor:
        """Returns the images at `places`, uint8 [k, C, H, W].

        Args:
            places: int64 [k].
            draw: as in `Batch`.

        Raises:
            DataError: one of them can no longer be read.
        """
        parts = list(self._loaded(Batch(some, draw) for some in torch.split(places, SAMPLE_BATCH)))
        gone = [name for part in parts for name, _ in part.damaged]
        if gone:
            raise DataError(f"dataset {self.data.name}: {gone[0]} cannot be read any more")
        return torch.cat([part.images for part in parts])

    def floats(self, images: Tensor) -> Tensor:
        """Returns uint8 images normalised, on the split's device."""
        return self.normalised(images.to(self.device, non_blocking=True))

    def share_damage(self) -> None:
        """See `Split`."""
        if distributed.size() == 1:
            return
        for part in distributed.from_all(self._unshared):
            self._record(part)
        self._unshared = []
        self._require_few_damaged()

    def _read(self, wanted: Iterable[Batch], *, together: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields uint8 images and labels of the wanted batches, on the device."""
        for part in self._loaded(wanted, together=together):
            images = part.images.to(self.device, non_blocking=True)
            yield images, self.labels[part.places].to(self.device, non_blocking=True)

    def _loaded(self, wanted: Iterable[Batch], *, together: bool = False) -> Iterator[Loaded]:
        """Yields the wanted batches decoded, and counts damaged images.

        Args:
            wanted: batches, in order.
            together: whether the run's other processes read at the same time and will call
                `share_damage`, which then checks the count instead.

        Raises:
            DataError: too many images are damaged.
            TrainingError: a loader process was killed.
        """
        self._order.batches = wanted
        loaded = iter(self._loader)
        while True:
            try:
                part = next(loaded)
            except StopIteration:
                return
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                stop_if_asked()  # a signal to stop the run reaches its loaders, too
                reason = " ".join(str(error).split())
                raise TrainingError(
                    f"a loader process was killed ({reason}); continue with run.resume=true, "
                    "perhaps with fewer dataset.workers"
                ) from None
            part = self._reader.finished(part, self.device)
            if part.damaged:
                self._record(part.damaged)
                if together and distributed.size() > 1:
                    self._unshared += part.damaged
                else:
                    self._require_few_damaged()
            yield part

    def _record(self, damaged: list[tuple[str, str]]) -> None:
        """Records damaged images."""
        for name, why in damaged:
            self._unread.add(name)
            self.data.damaged.add(name, why)

    def _require_few_damaged(self) -> None:
        """Raises DataError if more images are damaged than ``dataset.allow_damaged`` allows."""
        allowed = self.stream.loading.allow_damaged
        if len(self._unread) <= allowed * len(self):
            return
        name, why = [item for item in self.data.damaged.found.items() if item[0] in self._unread][
            -1
        ]
        raise DataError(
            f"dataset {self.data.name}: {len(self._unread)} of {len(self):,} images could not be "
            f"read, more than dataset.allow_damaged={allowed:g} allows; the last is {name} ({why})"
        )


def _leave_signals_to_the_run(_: int) -> None:
    """Makes a loader process ignore signals, so that it reads until the run has saved."""
    for number in SIGNALS:
        if number != signal.SIGTERM:  # torch itself ends loaders by SIGTERM
            signal.signal(number, signal.SIG_IGN)


class StreamedRows:
    """Holds a sample of images as uint8; those that do not fit are read again when sliced."""

    def __init__(self, split: StreamedSplit) -> None:
        """Starts with no image of `split`."""
        self.split = split
        self.places = torch.empty(0, dtype=torch.int64)
        self._kept: list[Tensor] = []

    def __len__(self) -> int:
        """Number of images."""
        return len(self.places)

    def add(self, part: Loaded) -> None:
        """Appends further images to the sample."""
        if self.places.numel() * part.images[:1].numel() < SAMPLE_BYTES:
            self._kept.extend(part.images.clone())  # frees the memory shared with the loader
        self.places = torch.cat([self.places, part.places])

    def __getitem__(self, rows: slice) -> Tensor:
        """Returns images normalised, float32 [k, C, H, W] on the split's device."""
        places = self.places[rows]
        begin, end, _ = rows.indices(len(self))
        if not len(places):
            images = torch.empty(0, *self.split.shape, dtype=torch.uint8)
        elif end <= len(self._kept):
            images = torch.stack(self._kept[rows])
        else:
            images = self.split.read(places)
        return self.split.floats(images)

    def augmented(self, seed: int) -> AugmentedRows:
        """Returns the images augmented as in training."""
        return AugmentedRows(self.split, self.places, seed)


@dataclass(frozen=True)
class AugmentedRows:
    """Holds a sample of images, read again and augmented as in training when they are sliced.

    Attributes:
        split: which reads the images.
        places: int64 [n], in the split.
        seed: of the augmentation.
    """

    split: StreamedSplit
    places: Tensor
    seed: int

    def __len__(self) -> int:
        """Number of images."""
        return len(self.places)

    def __getitem__(self, rows: slice) -> Tensor:
        """Returns images augmented and normalised, float32 [k, C, H, W] on the split's device."""
        return self.split.floats(self.split.read(self.places[rows], (self.seed, "sample", 0)))
