"""Loads CIFAR-10 and CIFAR-100, as published for Python or as the same arrays in an ``.npz``."""

from __future__ import annotations

import hashlib
import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunebench.datasets import Arrays, Data
from prunebench.datasets.in_memory import InMemory
from prunebench.datasets.npz import KEYS, read_arrays, to_split
from prunebench.errors import DataError, require_choice
from prunebench.locks import locked

if TYPE_CHECKING:
    from prunebench.datasets.npz import Array

_TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
#: sha256 over the four arrays -> note to print beside tables made from them
_KNOWN_COPIES = {
    "e57384ac0441112e3f38e5b602d922c196a3fd842869e1570606ddf09a602df1": (
        "CIFAR-10 (reconstructed copy, 93 JPEG images)"
    )
}


@dataclass(frozen=True, kw_only=True)
class Cifar(InMemory):
    """Loads 60,000 colour images of 32 x 32; the schema of ``conf/dataset/cifar{10,100}.yaml``.

    Attributes:
        variant: ``cifar10`` or ``cifar100``.
        root: folder that holds ``cifar-10-batches-py/`` or ``cifar-100-python/`` as published, or
            else ``cifar10.npz`` or ``cifar100.npz`` with the arrays of `npz.KEYS`.
        download: whether to download the published archive into `root` if neither exists.
    """

    variant: str
    root: str
    download: bool

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        super().__post_init__()
        require_choice("variant", self.variant, _TITLES)

    @property
    def missing(self) -> str:
        """A message if neither form of the files exists and none will be downloaded; else ""."""
        root = Path(self.root).expanduser()
        folder, archive = _published(self.variant, root), root / f"{self.variant}.npz"
        if self.download or folder.is_dir() or archive.is_file():
            return ""
        return (
            f"dataset {self.variant} is not in {root} ({folder.name}/ or {archive.name}); "
            "run with dataset.download=true or set dataset.root"
        )

    @property
    def files(self) -> dict[str, Path]:
        """The ``.npz`` if it will be read; the published files are checked against their md5."""
        root = Path(self.root).expanduser()
        archive = self._archive(root)
        return {} if archive is None else {"root": archive}

    def load(self) -> Data:
        """Reads the splits; every published file is checked against its md5.

        Raises:
            DataError: the files are missing, truncated or corrupt, or cannot be downloaded.
        """
        if self.missing:
            raise DataError(self.missing)
        root = Path(self.root).expanduser()
        archive = self._archive(root)
        classes = 10 if self.variant == "cifar10" else 100
        note = ""
        if archive is not None:
            train, test, note = _read_npz(archive, _TITLES[self.variant], classes)
        else:
            _fetch(self.variant, root)
            train, test = _read_published(self.variant, root)
        return self.data(self.variant, train, test, classes=classes, note=note)

    def _archive(self, root: Path) -> Path | None:
        """Returns the ``.npz`` if it exists and the published files do not; else None."""
        archive = root / f"{self.variant}.npz"
        published = _published(self.variant, root).is_dir()
        return archive if archive.is_file() and not published else None


def _published(variant: str, root: Path) -> Path:
    return root / ("cifar-10-batches-py" if variant == "cifar10" else "cifar-100-python")


def _reader(variant: str) -> Any:
    """Returns the torchvision class that knows the address and the md5 of every file."""
    import torchvision

    return getattr(torchvision.datasets, variant.upper())


def _fetch(variant: str, root: Path) -> None:
    folder = _published(variant, root)
    if folder.is_dir():
        return
    from torchvision.datasets.utils import download_and_extract_archive

    reader = _reader(variant)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / f".{variant}.lock"):  # several jobs of a sweep may start at once
            if not folder.is_dir():
                download_and_extract_archive(
                    reader.url, str(root), filename=reader.filename, md5=reader.tgz_md5
                )
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"dataset {variant} could not be downloaded from {reader.url} ({error}); "
            f"put {folder.name}/ or {variant}.npz into {root}"
        ) from error


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles arrays and refuses everything else, as a forged file may have the right md5."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns one of the three names that a pickled array needs.

        Raises:
            UnpicklingError: it is another name.
        """
        import numpy as np

        if name == "_reconstruct" and module.endswith(".multiarray"):
            return np.empty(0).__reduce__()[0]  # its module moved between numpy 1 and 2
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            # the files pass align and copy as the integers 0 and 1, which numpy 2.4 warns about
            return lambda code, align, copy: np.dtype(code, align=bool(align), copy=bool(copy))
        raise pickle.UnpicklingError(f"{module}.{name} has no place in one")


def _read_batch(path: Path, md5: str) -> tuple[Array, Array]:
    """Returns images uint8 [n, 32, 32, 3] and labels [n] of one published file.

    Raises:
        DataError: it is missing or corrupt.
    """
    import numpy as np

    if not path.is_file():
        raise DataError(f"{path} is missing; remove {path.parent} and run dataset.download=true")
    raw = path.read_bytes()
    found = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    if found != md5:
        raise DataError(
            f"{path} is truncated or corrupt ({len(raw)} bytes, md5 {found}, published: {md5}); "
            f"remove {path.parent} and run dataset.download=true"
        )
    try:
        entry = _ArrayUnpickler(io.BytesIO(raw), encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise DataError(f"{path} is no CIFAR file: {error}") from error
    labels = np.asarray(entry["labels"] if "labels" in entry else entry["fine_labels"])
    return entry["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def _read_published(variant: str, root: Path) -> tuple[Arrays, Arrays]:
    import numpy as np

    reader = _reader(variant)
    splits = []
    for files in (reader.train_list, reader.test_list):
        batches = [_read_batch(_published(variant, root) / name, md5) for name, md5 in files]
        images, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
        splits.append(to_split(images, labels))
    return splits[0], splits[1]


def _read_npz(path: Path, title: str, classes: int) -> tuple[Arrays, Arrays, str]:
    import numpy as np

    arrays = read_arrays(path)
    shape = arrays["train_images"].shape[1:]
    highest = max(int(arrays[key].max()) for key in ("train_labels", "test_labels"))
    if shape != (32, 32, 3) or highest >= classes:
        raise DataError(
            f"{path}: {title} has images of (32, 32, 3) and labels below {classes}, "
            f"got {shape} and {highest}; use dataset=npz for other data"
        )
    digest = hashlib.sha256()
    for key in KEYS:
        digest.update(np.ascontiguousarray(arrays[key]).data)
    note = _KNOWN_COPIES.get(digest.hexdigest(), f"{title} (from {path.name}, contents unknown)")
    train = to_split(arrays["train_images"], arrays["train_labels"])
    test = to_split(arrays["test_images"], arrays["test_labels"])
    return train, test, note
