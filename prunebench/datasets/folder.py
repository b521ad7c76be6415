"""Loads photographs in one folder per class: ImageNet, Tiny-ImageNet, or one's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.datasets import Data, DatasetSpec
from prunebench.datasets.in_memory import balanced_order
from prunebench.datasets.listed import find_list, listed_labels
from prunebench.datasets.stream import DECODERS, Loading, Stream
from prunebench.datasets.tree import ImageFiles, class_folders, images_below, labelled
from prunebench.datasets.views import (
    AUGMENTS,
    FITS,
    INTERPOLATIONS,
    Preset,
    at_random,
    middle,
    square_at_random,
)
from prunebench.errors import DataError, require, require_choice

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Folder(DatasetSpec):
    """Reads images when they are needed; the schema of ``conf/dataset/folder.yaml``.

    If `image_size`, `crop`, `interpolation`, `mean` and `std` are null, they are those of the
    model's weights, or else those of most networks for ImageNet.

    Attributes:
        path: folder of the data set.
        train, val, test: names of folders in it; null looks for folders with these names.
        labels: list with the labels of test images that do not lie in class folders; null looks for
            the lists in `listed.KNOWN`.
        image_size: side of the square that the network sees.
        crop: fraction of the shorter side that this square takes without augmentation.
        interpolation: of training and test images.
        fit: ``shorter`` scales the shorter side to ``image_size / crop``; ``squeeze`` both sides.
        augment: training images are a random ``part`` of the image, or a random ``square`` of the
            scaled image of which the test uses the middle.
        scale, ratio: ranges of a random part's share of the area, and of its width over height.
        flip: whether training images are mirrored at random.
        mean, std: per channel, in units of pixel / 255.
        val_size, test_size: number of images split off the training set, classes balanced, if there
            is no folder for them; null = a tenth of it.
        train_size: number of the remaining training images to use, classes balanced; null = all.
        split_seed: draws these splits.
        workers: loader processes, shared among the run's processes; null = one per CPU.
        prefetch: batches that each of them reads ahead.
        allow_damaged: fraction of a split that may be unreadable.
        decode: where JPEG files are decoded, by Pillow on the ``cpu`` or on the run's ``gpu``.
    """

    path: str
    train: str | None
    val: str | None
    test: str | None
    labels: str | None
    image_size: int | None
    crop: float | None
    interpolation: str | None
    scale: list[float]
    ratio: list[float]
    flip: bool
    mean: list[float] | None
    std: list[float] | None
    val_size: int | None
    test_size: int | None
    train_size: int | None
    split_seed: int
    workers: int | None
    prefetch: int
    allow_damaged: float
    fit: str = "shorter"
    augment: str = "part"
    decode: str = "cpu"

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require(self.image_size is None or self.image_size >= 1, "image_size must be at least 1")
        require(
            self.crop is None or 0 < self.crop <= 1, f"crop must lie in (0, 1], got {self.crop}"
        )
        if self.interpolation is not None:
            require_choice("interpolation", self.interpolation, INTERPOLATIONS)
        require_choice("fit", self.fit, FITS)
        require_choice("augment", self.augment, AUGMENTS)
        require_choice("decode", self.decode, DECODERS)
        require(
            self.decode == "cpu" or self.interpolation != "lanczos",
            "decode=gpu: there is no interpolation=lanczos on a GPU; take bicubic",
        )
        _require_range("scale", self.scale, 1.0)
        _require_range("ratio", self.ratio, float("inf"))
        for name, values in (("mean", self.mean), ("std", self.std)):
            require(values is None or len(values) == 3, f"{name} must have three values")
        require(self.std is None or min(self.std) > 0, "std must be positive")
        for name in ("val_size", "test_size"):
            size = getattr(self, name)
            require(size is None or size >= 0, f"{name} must not be negative, got {size}")
        require(self.train_size is None or self.train_size >= 1, "train_size must be at least 1")
        require(0 <= self.split_seed < 2**32, "split_seed must lie in 0..2**32 - 1")
        require(self.workers is None or self.workers >= 0, "workers must not be negative")
        require(self.prefetch >= 1, f"prefetch must be at least 1, got {self.prefetch}")
        require(0 <= self.allow_damaged < 1, "allow_damaged must lie in [0, 1)")

    @property
    def missing(self) -> str:
        """A message on a folder or list that does not exist; "" if there is none."""
        root = Path(self.path).expanduser()
        if not root.is_dir():
            return (
                f"dataset.path: there is no folder {root}; it must hold train/ and val/ or test/ "
                "with a folder for each class, or just these folders"
            )
        for key in ("train", "val", "test"):
            name = getattr(self, key)
            if name is not None and not (root / name).is_dir():
                return f"dataset.{key}: there is no folder {root / name}"
        if self.labels is not None and not Path(self.labels).expanduser().is_file():
            return f"dataset.labels: there is no file {self.labels}"
        return ""

    @property
    def files(self) -> dict[str, Path]:
        """The folder, and the list of labels if one is named."""
        named = {"path": self.path} | ({} if self.labels is None else {"labels": self.labels})
        return {field: Path(path).expanduser() for field, path in named.items()}

    def suited(self, preset: Preset | None) -> Folder:
        """Returns the spec with null fields taken from `preset`."""
        by = preset or Preset()
        return replace(
            self,
            image_size=self.image_size or by.size,
            crop=self.crop or by.crop,
            interpolation=self.interpolation or by.interpolation,
            mean=self.mean or list(by.mean),
            std=self.std or list(by.std),
        )

    def load(self) -> Data:
        """Lists the images without reading any.

        Raises:
            DataError: folders are missing or empty, or their classes differ.
        """
        if self.missing:
            raise DataError(self.missing)
        import torch

        root = Path(self.path).expanduser()
        spec = self.suited(None)
        folders = self._folders(root)
        classes = _classes(folders["train"])
        names: list[str] = []
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for part, folder in folders.items():
            images, labels = self._labelled(root, folder, classes, part)
            numbers = torch.arange(len(names), len(names) + len(images))
            names += [os.path.relpath(folder / image, root) for image in images]
            found[part] = numbers, torch.tensor(labels, dtype=torch.int64)
        source = ImageFiles.of(root, names)
        parts = self._split(*found.pop("train"), found)
        train, val, test = (spec._stream(source, *parts[part]) for part in ("train", "val", "test"))
        mean, std = tuple(spec.mean or ()), tuple(spec.std or ())
        return Data(root.name, train, val, test, classes=len(classes), mean=mean, std=std)

    def _folders(self, root: Path) -> dict[str, Path]:
        """Returns part -> folder, for the training images and each other part that has one.

        Raises:
            DataError: there are folders for other parts, but none for training.
        """
        existing = {
            key: root / (getattr(self, key) or key)
            for key in ("train", "val", "test")
            if (root / (getattr(self, key) or key)).is_dir()
        }
        if "train" not in existing:
            if existing:
                raise DataError(
                    f"{root} has {min(existing)}/ but no train/; set dataset.train=FOLDER"
                )
            return {"train": root}
        if existing.get("test") == existing.get("val"):
            existing.pop("val", None)
        tiny = "val" in existing and (existing["val"] / "val_annotations.txt").is_file()
        if "val" in existing and ("test" not in existing or (tiny and self.test is None)):
            # papers test on val/; Tiny-ImageNet's test/ has no labels
            existing["test"] = existing.pop("val")
        return existing

    def _labelled(
        self, root: Path, folder: Path, classes: Sequence[str], part: str
    ) -> tuple[list[str], list[int]]:
        """Returns the images below `folder` and their labels, from class folders or from a list.

        Raises:
            DataError: there are no images, or no labels for them.
        """
        named = None if self.labels is None or part != "test" else Path(self.labels).expanduser()
        flat = part != "train" and not {*class_folders(folder)} & {*classes}
        if not flat and named is None:
            return labelled(folder, classes)
        images = images_below(folder)
        if not images:
            raise DataError(f"{folder} holds no images")
        path = named or find_list(folder, root)
        if path is None:
            raise DataError(
                f"{folder} holds {len(images):,} images, and not in folders named like those of "
                "the training set; move them into such folders, or set dataset.labels to a list "
                "with a line 'image class' for each (LOC_val_solution.csv, the devkit's, ...)"
            )
        return images, listed_labels(path, images, classes)

    def _split(
        self, numbers: Tensor, labels: Tensor, found: dict[str, tuple[Tensor, Tensor]]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Returns numbers and labels of all parts; those without a folder are cut from training.

        Raises:
            DataError: nothing is left to train with.
        """
        order, parts = balanced_order(labels, self.split_seed), dict(found)
        for part, size in (("test", self.test_size), ("val", self.val_size)):
            if part not in parts:
                count = round(len(labels) / 10) if size is None else size
                ascending = order[:count].sort().values
                parts[part] = numbers[ascending], labels[ascending]
                order = order[count:]
        order = order[: self.train_size].sort().values
        if not len(order):
            raise DataError(
                f"{self.path}: val_size={self.val_size} and test_size={self.test_size} leave none "
                f"of {len(labels):,} images to train with; lower one of them"
            )
        return parts | {"train": (numbers[order], labels[order])}

    def _stream(self, source: ImageFiles, numbers: Tensor, labels: Tensor) -> Stream:
        """Returns some of the images as a stream; `suited` must have filled in null fields."""
        size, crop, by = self.image_size, self.crop, self.interpolation
        assert size is not None and crop is not None and by is not None
        (least, most), (narrow, wide) = self.scale, self.ratio
        workers = cpus() if self.workers is None else self.workers
        return Stream(
            source=source,
            numbers=numbers,
            labels=labels,
            shape=(3, size, size),
            training=at_random(size, (least, most), (narrow, wide), by, self.flip)
            if self.augment == "part"
            else square_at_random(size, crop, by, self.fit, self.flip),
            plain=middle(size, crop, by, self.fit),
            loading=Loading(
                workers=workers, prefetch=self.prefetch, allow_damaged=self.allow_damaged
            ),
            files=source if self.decode == "gpu" else None,
        )


def cpus() -> int:
    """Returns the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _require_range(name: str, values: Sequence[float], most: float) -> None:
    """Raises ConfigError unless `values` are two ascending positive numbers up to `most`."""
    require(
        len(values) == 2 and 0 < values[0] <= values[1] <= most,
        f"{name} must be two ascending positive numbers{'' if most > 1 else ' up to 1'}, "
        f"got {list(values)}",
    )


def _classes(folder: Path) -> list[str]:
    """Returns the names of the classes of the training set.

    Raises:
        DataError: there are fewer than two.
    """
    found = class_folders(folder)
    if len(found) < 2:
        packed = " (it holds archives: unpack them)" if any(folder.glob("*.tar")) else ""
        raise DataError(
            f"{folder} must hold at least two folders with images, one for each class; it holds "
            f"{len(found)}{packed}"
        )
    return found
