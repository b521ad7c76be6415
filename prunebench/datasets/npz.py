"""Loads a user's own images from arrays in one ``.npz`` file."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from prunebench.archives import bomb_in
from prunebench.datasets import Arrays, Data
from prunebench.datasets.in_memory import InMemory
from prunebench.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

KEYS = ("train_images", "train_labels", "test_images", "test_labels")
#: exceptions on reading a zip archive or array that is damaged or forged
UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, NotImplementedError),
    *(ValueError, EOFError, OSError),
)


def read_arrays(path: Path) -> dict[str, Array]:
    """Returns the four checked arrays of `path`, by the names in `KEYS`.

    Images are uint8 [n, H, W, C] with 1 or 3 channels, labels integers [n] from 0 up. Images stored
    as [n, H, W] get a channel dimension. Nothing is unpickled.

    Raises:
        DataError: the file is truncated or corrupt, or an array does not fit.
    """
    import numpy as np

    try:
        with path.open("rb") as raw:
            if told := bomb_in(raw):
                raise DataError(f"{path} {told}, too much for images; it was not read")
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            if missing := [key for key in KEYS if key not in file.files]:
                lacks = f"{path} lacks {', '.join(missing)}"
                raise DataError(f"{lacks}; it must hold {', '.join(KEYS)}")
            for key in KEYS:
                _check_size(file.zip, f"{key}.npy")
            arrays = {key: file[key] for key in KEYS}
    except UNREADABLE as error:
        # NumPy's message advises to unpickle the file, which would run its code
        why = "it holds no numbers" if "pickle" in str(error) else error
        raise DataError(f"{path} is truncated, corrupt or no .npz file ({why})") from error
    except TypeError as error:  # np.load has returned an array, which `with` does not take
        raise DataError(f"{path} is a single array; save {', '.join(KEYS)} in a .npz") from error
    for part in ("train", "test"):
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        if images.ndim == 3:
            images = arrays[f"{part}_images"] = images[..., None]
        _check(path, part, images, labels)
    if arrays["train_images"].shape[1:] != arrays["test_images"].shape[1:]:
        raise DataError(
            f"{path}: train_images are {arrays['train_images'].shape[1:]} but test_images "
            f"{arrays['test_images'].shape[1:]}; they must be of one shape"
        )
    return arrays


def _check_size(archive: zipfile.ZipFile, name: str) -> None:
    """Raises ValueError if an array is not as long as the header of its file claims.

    The header alone decides how much memory NumPy would allocate.
    """
    from numpy.lib import format as layout

    with archive.open(name) as member:
        version = layout.read_magic(member)
        known = {(1, 0): layout.read_array_header_1_0, (2, 0): layout.read_array_header_2_0}
        if version not in known:
            return
        shape, _, dtype = known[version](member)
        if prod(shape) * dtype.itemsize > archive.getinfo(name).file_size:
            raise ValueError(f"{name} claims to be {dtype} {list(shape)}, and is not that long")


def _check(path: Path, part: str, images: Array, labels: Array) -> None:
    fits = images.ndim == 4 and images.shape[-1] in (1, 3) and images.dtype == "uint8"
    if not fits or images.size == 0:
        raise DataError(
            f"{path}: {part}_images must be uint8 [n, H, W, C] with 1 or 3 channels, "
            f"got {images.dtype} {list(images.shape)}"
        )
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise DataError(
            f"{path}: {part}_labels must be integers [{len(images)}], "
            f"got {labels.dtype} {list(labels.shape)}"
        )
    if labels.min() < 0:
        raise DataError(f"{path}: {part}_labels must count from 0, got {labels.min()}")


def check_labels(path: Path, labels: list[int], classes: int) -> None:
    """Raises DataError unless the training labels are all of 0..`classes` - 1, at least two."""
    if classes < 2:
        raise DataError(f"{path}: all labels are 0; there must be at least two classes")
    learnt = set(labels)
    if len(learnt) < classes:
        absent = next(label for label in range(classes) if label not in learnt)
        raise DataError(
            f"{path}: labels go up to {classes - 1}, but no training image has label {absent}; "
            "number the classes 0, 1, 2 ... without gaps"
        )


def to_split(images: Array, labels: Array) -> Arrays:
    """Returns uint8 [n, H, W, C] images and integer labels as a split, channels first."""
    import numpy as np
    import torch

    first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return Arrays(torch.from_numpy(first), torch.from_numpy(labels.astype("int64")))


@dataclass(frozen=True, kw_only=True)
class Npz(InMemory):
    """Loads the arrays of one file; the schema of ``conf/dataset/npz.yaml``.

    Attributes:
        path: the ``.npz`` file; its keys are those of `KEYS`.
    """

    path: str

    @property
    def missing(self) -> str:
        """A message if the file does not exist; else ""."""
        path = Path(self.path).expanduser()
        if path.is_file():
            return ""
        return f"dataset.path: there is no file {path}; it must hold the arrays {', '.join(KEYS)}"

    @property
    def files(self) -> dict[str, Path]:
        """The one file."""
        return {"path": Path(self.path).expanduser()}

    def load(self) -> Data:
        """Reads and splits the arrays; the highest label determines the number of classes.

        Raises:
            DataError: the file is missing, truncated or corrupt, or an array does not fit.
        """
        if self.missing:
            raise DataError(self.missing)
        path = Path(self.path).expanduser()
        arrays = read_arrays(path)
        train = to_split(arrays["train_images"], arrays["train_labels"])
        test = to_split(arrays["test_images"], arrays["test_labels"])
        classes = 1 + max(int(train.labels.max()), int(test.labels.max()))
        check_labels(path, train.labels.tolist(), classes)
        return self.data(path.stem, train, test, classes=classes)
