"""Reads batches of images in loader processes, which decode them or leave that to the GPU.

A loader process reads whole batches, so which process reads one, and when, changes nothing.
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

#: first bytes of a JPEG file
JPEG = b"\xff\xd8\xff"


@dataclass(frozen=True)
class Batch:
    """Names the images that a loader process is to read.

    Attributes:
        places: int64 [k], in the split.
        draw: seeds the augmentation, together with each image's number; None does not augment.
    """

    places: Tensor
    draw: tuple[int, str, int] | None = None


class Loaded(NamedTuple):
    """Holds decoded images, as the network will see them but not yet normalised.

    Attributes:
        images: uint8 [k, C, H, W].
        places: int64 [k], of these images in the split; damaged ones are left out.
        damaged: (name, reason) of each damaged image.
    """

    images: Tensor
    places: Tensor
    damaged: list[tuple[str, str]]


class Fetched(NamedTuple):
    """Holds images that are not decoded yet.

    Attributes:
        images: uint8 [bytes] of each JPEG file, [C, H, W] of any other image.
        places: int64 [k], of these images in the split; unreadable ones are left out.
        damaged: (name, reason) of each unreadable image.
        draw: as in `Batch`.
    """

    images: list[Tensor]
    places: Tensor
    damaged: list[tuple[str, str]]
    draw: tuple[int, str, int] | None


class Reader(Dataset[Loaded]):
    """Reads and decodes batches; this object is sent to the loader processes."""

    def __init__(self, stream: Stream) -> None:
        """Reads from `stream`."""
        self.stream = stream

    def __getitem__(self, batch: Batch) -> Loaded:
        """Returns the images of `batch`; leaves the state of torch's generator as it was."""
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
                shown = _view(stream, image, number, batch.draw)
                images[len(read)] = np.asarray(shown).reshape(height, width, channels)
                read.append(place)
        pixels = torch.from_numpy(images[: len(read)]).permute(0, 3, 1, 2)
        return Loaded(pixels, torch.tensor(read, dtype=torch.int64), damaged)

    def finished(self, part: Loaded, device: torch.device) -> Loaded:
        """Returns `part`, which needs nothing more."""
        return part


class Fetcher(Dataset[Fetched]):
    """Reads batches of files; JPEGs among them are decoded later, on the device."""

    def __init__(self, stream: Stream, files: Files) -> None:
        """Reads `files`, which hold the images of `stream`."""
        self.stream, self.files = stream, files

    def __getitem__(self, batch: Batch) -> Fetched:
        """Returns the contents of the files of `batch`."""
        images: list[Tensor] = []
        damaged: list[tuple[str, str]] = []
        read: list[int] = []
        for place in batch.places.tolist():
            number = int(self.stream.numbers[place])
            try:
                content = self.files.content(number)
                images.append(
                    _as_tensor(content)
                    if content.startswith(JPEG)
                    else _decode_with_pillow(content)
                )
            except Unreadable as error:
                damaged.append((self.stream.source.name(number), str(error)))
                continue
            read.append(place)
        return Fetched(images, torch.tensor(read, dtype=torch.int64), damaged, batch.draw)

    def finished(self, part: Fetched, device: torch.device) -> Loaded:
        """Returns `part` decoded on `device`, and augmented as a `Reader` would have."""
        stream = self.stream
        damaged = list(part.damaged)
        images: list[Tensor] = []
        read: list[int] = []
        with torch.random.fork_rng(devices=[]):
            decoded = _decode_all(part.images, device)
            for place, image in zip(part.places.tolist(), decoded, strict=True):
                number = int(stream.numbers[place])
                if isinstance(image, Unreadable):
                    damaged.append((stream.source.name(number), str(image)))
                    continue
                images.append(_view(stream, image, number, part.draw))
                read.append(place)
        empty = torch.empty(0, *stream.shape, dtype=torch.uint8, device=device)
        pixels = torch.stack(images) if images else empty
        return Loaded(pixels, torch.tensor(read, dtype=torch.int64), damaged)


def _view(stream: Stream, image: Any, number: int, draw: tuple[int, str, int] | None) -> Any:
    """Returns a decoded image, Pillow's or uint8 [C, H, W], cropped; augmented by `draw`."""
    if draw is None:
        return stream.plain(image)
    # torch.manual_seed would seed every device, too
    torch.default_generator.manual_seed(seed_for(*draw, "image", number))
    return stream.training(image)


def _decode_all(images: list[Tensor], device: torch.device) -> list[Tensor | Unreadable]:
    """Returns each image as uint8 [C, H, W] on `device`, or the reason why it cannot be decoded."""
    files = [image for image in images if image.dim() == 1]
    pixels: Iterator[Tensor | Unreadable]
    try:
        pixels = iter(_decode_on_device(files, device) if files else [])
    except RuntimeError:  # the error does not tell which file it was
        pixels = (_decode_one(file, device) for file in files)
    return [next(pixels) if image.dim() == 1 else image.to(device) for image in images]


def _decode_one(file: Tensor, device: torch.device) -> Tensor | Unreadable:
    """Returns one decoded image; Pillow decodes it if the device cannot."""
    try:
        return _decode_on_device([file], device)[0]
    except RuntimeError:
        pass
    try:
        return _decode_with_pillow(file.numpy().tobytes()).to(device)
    except Unreadable as error:
        return error


def _decode_on_device(files: list[Tensor], device: torch.device) -> list[Tensor]:
    """Returns JPEG files decoded by `device`.

    Raises:
        RuntimeError: one of them cannot be decoded.
    """
    from torchvision.io import ImageReadMode, decode_jpeg  # slow to import and rarely needed

    with warnings.catch_warnings():  # torchvision announces to move it to another package
        warnings.simplefilter("ignore", DeprecationWarning)
        decoded: list[Tensor] = decode_jpeg(files, ImageReadMode.RGB, device)
    return decoded


def _decode_with_pillow(content: bytes) -> Tensor:
    """Returns an image as Pillow decodes it, uint8 [C, H, W]."""
    return torch.from_numpy(np.array(rgb(BytesIO(content)))).permute(2, 0, 1)


def _as_tensor(content: bytes) -> Tensor:
    """Returns the content of a file as uint8 [bytes]."""
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)
