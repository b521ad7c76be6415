"""Loads MNIST and Fashion-MNIST from their four idx files."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunebench.datasets import Arrays, Data
from prunebench.datasets.in_memory import InMemory
from prunebench.errors import DataError, require_choice
from prunebench.locks import locked

_SIDE = 28
_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
#: sha256 of the decompressed files, since mirrors compress them differently
_DIGESTS = {
    "mnist": {
        "train-images-idx3-ubyte": (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
        ),
        "train-labels-idx1-ubyte": (
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
        ),
        "t10k-images-idx3-ubyte": (
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
        ),
        "t10k-labels-idx1-ubyte": (
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
        ),
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte": (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
        ),
        "train-labels-idx1-ubyte": (
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
        ),
        "t10k-images-idx3-ubyte": (
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
        ),
        "t10k-labels-idx1-ubyte": (
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
        ),
    },
}
_READERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}


@dataclass(frozen=True, kw_only=True)
class Mnist(InMemory):
    """Loads 70,000 grey 28 x 28 images; the schema of ``conf/dataset/{mnist,fashion_mnist}.yaml``.

    Attributes:
        variant: ``mnist`` or ``fashion_mnist``.
        root: folder with the four idx files, plain or .gz, directly or in a folder named like the
            variant or like torchvision's (``MNIST/raw``, ``FashionMNIST/raw``).
        download: whether torchvision downloads them into `root` if they do not exist.
    """

    variant: str
    root: str
    download: bool

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range or an unknown variant."""
        super().__post_init__()
        require_choice("variant", self.variant, _DIGESTS)

    @property
    def missing(self) -> str:
        """A message if none of the files exists and they will not be downloaded; else ""."""
        root = Path(self.root).expanduser()
        if self.download or self._folder(root) is not None:
            return ""
        return (
            f"dataset {self.variant} is not in {root} ({_FILES['train'][0]}.gz and three "
            "more); run with dataset.download=true or set dataset.root"
        )

    def load(self) -> Data:
        """Reads the splits; checks the content of every file against its sha256.

        Raises:
            DataError: the files are missing, truncated or corrupt, or cannot be downloaded.
        """
        if self.missing:
            raise DataError(self.missing)
        root = Path(self.root).expanduser()
        if self._folder(root) is None:
            _download(self.variant, root)
        folder = self._folder(root)
        if folder is None:
            raise DataError(f"dataset {self.variant} was downloaded, and yet is not in {root}")
        train, test = (_read_split(folder, _FILES[part], self.variant) for part in _FILES)
        return self.data(self.variant, train, test, classes=10)

    def _folder(self, root: Path) -> Path | None:
        """Returns the first folder in question that holds any of the files; None if none does."""
        for folder in (root / _READERS[self.variant] / "raw", root / self.variant, root):
            names = [name for pair in _FILES.values() for name in pair]
            if any(_find(folder, name) for name in names):
                return folder
        return None


def _find(folder: Path, name: str) -> Path | None:
    """Returns the plain or the compressed file, whichever exists; None if neither does."""
    for candidate in (name, f"{name}.gz"):
        if (folder / candidate).is_file():
            return folder / candidate
    return None


def _download(variant: str, root: Path) -> None:
    from torchvision import datasets

    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / f".{variant}.lock"):  # several jobs of a sweep may start at once
            getattr(datasets, _READERS[variant])(str(root), download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"dataset {variant} could not be downloaded ({error}); put the four idx files "
            f"into {root / variant}"
        ) from error


def _read_split(folder: Path, names: tuple[str, str], variant: str) -> Arrays:
    import torch

    images, labels = (_read_idx(folder, name, _DIGESTS[variant][name]) for name in names)
    return Arrays(torch.from_numpy(images)[:, None], torch.from_numpy(labels).long())


def _read_idx(folder: Path, name: str, digest: str) -> Any:
    """Returns the array of one idx file: uint8 [n, 28, 28] or [n].

    Raises:
        DataError: it is missing or corrupt.
    """
    import numpy as np

    path = _find(folder, name)
    if path is None:
        raise DataError(f"{folder / name}.gz is missing, though other files are in {folder}")
    raw = path.read_bytes()
    try:
        content = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is truncated or corrupt ({error}); fetch it again") from error
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise DataError(
            f"{path} is truncated, corrupt or of another data set ({len(content)} bytes, "
            f"sha256 {found}, published: {digest}); fetch it again"
        )
    # the digest has proven the header right: magic number 0x801 or 0x803, then the sizes
    dimensions = content[3]
    pixels = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).copy()
    return pixels.reshape(-1, _SIDE, _SIDE) if dimensions == 3 else pixels
