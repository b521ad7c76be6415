"""What loader processes do: they read batches of images, and decode them or leave that to the GPU.

Either way a batch travels whole, so which process made it, and when, decides nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from prunebench.datasets.decoding import rgb
from prunebench.datasets.stream import Files, Stream, Unreadable
from prunebench.reproducibility import seed_for

#: what a JPEG file begins with
JPEG = b"\xff\xd8\xff"


@dataclass(frozen=True)
class Batch:
    """What a loader process is asked for.

    Attributes:
        places: int64 [k], in the split.
        draw: what seeds the augmentation, beside the image's own number; None augments nothing.
    """

    places: Tensor
    draw: tuple[int, str, int] | None = None


class Loaded(NamedTuple):
    """Images as the network will see them, but for normalising.

    Attributes:
        images: uint8 [k, C, H, W].
        places: int64 [k], of these images; the damaged ones are left out.
        damaged: names and reasons.
    """

    images: Tensor
    places: Tensor
    damaged: list[tuple[str, str]]


class Fetched(NamedTuple):
    """Images that are not decoded yet.

    Attributes:
        images: uint8 [bytes] of each JPEG file, [C, H, W] of any other image.
        places: int64 [k], of these images; those that are not there are left out.
        damaged: names and reasons.
        draw: as in `Batch`.
    """

    images: list[Tensor]
    places: Tensor
    damaged: list[tuple[str, str]]
    draw: tuple[int, str, int] | None


class Reader(Dataset[Loaded]):
    """Reads and decodes batches; this is what travels to the loader processes."""

    def __init__(self, stream: Stream) -> None:
        """Reads from `stream`."""
        self.stream = stream

    def __getitem__(self, batch: Batch) -> Loaded:
        """Returns the images of `batch`; torch's generator is afterwards where it was."""
        stream = self.stream
        damaged: list[tuple[str, str]] = []
        channels, height, width = stream.shape
        images = np.empty((len(batch.places), height, width, channels), np.uint8)
        read: list[int] = []
        with torch.random.fork_rng(devices=[]):
            for place in batch.places.tolist():
                number = int(stream.numbers[place])
                try:
                    image = stream.source.read(number)
                except Unreadable as error:
                    damaged.append((stream.source.name(number), str(error)))
                    continue
                shown = _shown(stream, image, number, batch.draw)
                images[len(read)] = np.asarray(shown).reshape(height, width, channels)
                read.append(place)
        pixels = torch.from_numpy(images[: len(read)]).permute(0, 3, 1, 2)
        return Loaded(pixels, torch.tensor(read, dtype=torch.int64), damaged)

    def finished(self, part: Loaded, device: torch.device) -> Loaded:
        """Returns `part`, which is whole."""
        return part


class Fetcher(Dataset[Fetched]):
    """Reads batches of files, which the device decodes if they are JPEGs."""

    def __init__(self, stream: Stream, files: Files) -> None:
        """Reads `files`, which hold the images of `stream`."""
        self.stream, self.files = stream, files

    def __getitem__(self, batch: Batch) -> Fetched:
        """Returns what the files of `batch` hold."""
        images: list[Tensor] = []
        damaged: list[tuple[str, str]] = []
        read: list[int] = []
        for place in batch.places.tolist():
            number = int(self.stream.numbers[place])
            try:
                content = self.files.content(number)
                images.append(_bytes(content) if content.startswith(JPEG) else _pillow(content))
            except Unreadable as error:
                damaged.append((self.stream.source.name(number), str(error)))
                continue
            read.append(place)
        return Fetched(images, torch.tensor(read, dtype=torch.int64), damaged, batch.draw)

    def finished(self, part: Fetched, device: torch.device) -> Loaded:
        """Returns `part` decoded, and shown as the loader processes would have, on `device`."""
        stream = self.stream
        damaged = list(part.damaged)
        images: list[Tensor] = []
        read: list[int] = []
        with torch.random.fork_rng(devices=[]):
            decoded = _decoded(part.images, device)
            for place, image in zip(part.places.tolist(), decoded, strict=True):
                number = int(stream.numbers[place])
                if isinstance(image, Unreadable):
                    damaged.append((stream.source.name(number), str(image)))
                    continue
                images.append(_shown(stream, image, number, part.draw))
                read.append(place)
        empty = torch.empty(0, *stream.shape, dtype=torch.uint8, device=device)
        pixels = torch.stack(images) if images else empty
        return Loaded(pixels, torch.tensor(read, dtype=torch.int64), damaged)


def _shown(stream: Stream, image: Any, number: int, draw: tuple[int, str, int] | None) -> Any:
    """Returns a decoded image, Pillow's or uint8 [C, H, W], as the network will see it."""
    if draw is None:
        return stream.plain(image)
    # not torch.manual_seed, which asks for the state of every device
    torch.default_generator.manual_seed(seed_for(*draw, "image", number))
    return stream.training(image)


def _decoded(images: list[Tensor], device: torch.device) -> list[Tensor | Unreadable]:
    """Returns the images, uint8 [C, H, W] on `device`, or why there is none."""
    files = [image for image in images if image.dim() == 1]
    pixels: Iterator[Tensor | Unreadable]
    try:
        pixels = iter(_by_device(files, device) if files else [])
    except RuntimeError:  # which of them it was is not told
        pixels = (_one(file, device) for file in files)
    return [next(pixels) if image.dim() == 1 else image.to(device) for image in images]


def _one(file: Tensor, device: torch.device) -> Tensor | Unreadable:
    """Returns one image, by Pillow where the device cannot decode it."""
    try:
        return _by_device([file], device)[0]
    except RuntimeError:
        pass
    try:
        return _pillow(file.numpy().tobytes()).to(device)
    except Unreadable as error:
        return error


def _by_device(files: list[Tensor], device: torch.device) -> list[Tensor]:
    """Returns JPEG files decoded by `device`."""
    from torchvision.io import ImageReadMode, decode_jpeg  # takes a second, and is rarely needed

    with warnings.catch_warnings():  # that it shall move to another package one day
        warnings.simplefilter("ignore", DeprecationWarning)
        decoded: list[Tensor] = decode_jpeg(files, ImageReadMode.RGB, device)
    return decoded


def _pillow(content: bytes) -> Tensor:
    """Returns an image as Pillow decodes it, uint8 [C, H, W]."""
    return torch.from_numpy(np.array(rgb(BytesIO(content)))).permute(2, 0, 1)


def _bytes(content: bytes) -> Tensor:
    """Returns what a file holds as uint8 [bytes]."""
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)
