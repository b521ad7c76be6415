"""Loads CASIA-WebFace, or any other training set of aligned faces, with LFW as its test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from prunebench.datasets import Data, DatasetSpec
from prunebench.datasets.faces.aligned import Faces, stream, try_one
from prunebench.datasets.faces.bins import KNOWN
from prunebench.datasets.faces.lfw import PAIRS, pairs_at
from prunebench.datasets.faces.pack import RECORDS, read_pack
from prunebench.datasets.folder import cpus
from prunebench.datasets.in_memory import balanced_order
from prunebench.datasets.pairs import PROTOCOLS
from prunebench.datasets.stream import Loading, Source, Stream
from prunebench.datasets.tree import ImageFiles, class_folders, images_below
from prunebench.errors import DataError, require, require_choice

if TYPE_CHECKING:
    from torch import Tensor


class Identities(NamedTuple):
    """Holds images of people: a source, its images' numbers and labels, and how many people."""

    source: Source
    numbers: Tensor
    labels: Tensor
    classes: int


@dataclass(frozen=True, kw_only=True)
class CasiaWebface(DatasetSpec):
    """Loads identities to train on, pairs to verify; schema of ``conf/dataset/casia_webface.yaml``.

    Attributes:
        path: InsightFace's pack, or a folder with one folder of aligned images per identity.
        lfw: folder of aligned images with ``pairs.txt``, or a bin; null looks for ``lfw.bin`` and
            ``lfw`` in `path`, and for ``lfw`` beside it.
        protocol: of the test.
        image_size: height and width that the network sees; wider images are cropped to the middle.
        flip: whether training images are mirrored at random.
        mean, std: per channel, in units of pixel / 255.
        val_size: number of images split off the training set, classes balanced; null = a hundredth.
        train_size: number of the remaining training images to use, classes balanced; null = all.
        split_seed: draws these splits.
        workers: loader processes; null = one per CPU.
        prefetch: batches that each of them reads ahead.
        allow_damaged: fraction of the training images that may be unreadable.
    """

    path: str
    lfw: str | None
    protocol: str
    image_size: list[int]
    flip: bool
    mean: list[float]
    std: list[float]
    val_size: int | None
    train_size: int | None
    split_seed: int
    workers: int | None
    prefetch: int
    allow_damaged: float

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require_choice("protocol", self.protocol, PROTOCOLS)
        require(
            len(self.image_size) == 2 and min(self.image_size) >= 1,
            f"image_size must be height and width, such as [112,96], got {list(self.image_size)}",
        )
        require(len(self.mean) == len(self.std) == 3, "mean and std must have three values each")
        require(min(self.std) > 0, "std must be positive")
        require(self.val_size is None or self.val_size >= 0, "val_size must not be negative")
        require(self.train_size is None or self.train_size >= 1, "train_size must be at least 1")
        require(0 <= self.split_seed < 2**32, "split_seed must lie in 0..2**32 - 1")
        require(self.workers is None or self.workers >= 0, "workers must not be negative")
        require(self.prefetch >= 1, f"prefetch must be at least 1, got {self.prefetch}")
        require(0 <= self.allow_damaged < 1, "allow_damaged must lie in [0, 1)")

    @property
    def verifies(self) -> bool:
        """True: the test is on pairs of faces."""
        return True

    @property
    def missing(self) -> str:
        """A message if there is nothing to train on, or no pairs; else ""."""
        root = Path(self.path).expanduser()
        if not root.is_dir():
            return (
                f"dataset.path: there is no folder {root}; it must hold InsightFace's {RECORDS} "
                "and property, or a folder of aligned images for each identity"
            )
        at = self._lfw
        if at is None:
            return (
                f"dataset.lfw: {root} has neither lfw.bin nor a folder lfw with {PAIRS}; name a "
                "bin, or a folder of aligned images"
            )
        if at.is_dir() and not (at / PAIRS).is_file():
            return f"dataset.lfw: {at} has no {PAIRS}; put LFW's list of pairs there"
        return "" if at.exists() else f"dataset.lfw: there is no file or folder {at}"

    @property
    def files(self) -> dict[str, Path]:
        """The folder and the pairs."""
        found = {"path": Path(self.path).expanduser()}
        return found if self._lfw is None else found | {"lfw": self._lfw}

    @property
    def _lfw(self) -> Path | None:
        """Where the pairs are; None if they are neither named nor found."""
        if self.lfw is not None:
            return Path(self.lfw).expanduser()
        root = Path(self.path).expanduser()
        usual = (root / "lfw.bin", root / "lfw", root.parent / "lfw")
        return next((path for path in usual if path.exists()), None)

    def load(self) -> Data:
        """Lists the images; reads one of each set as a check.

        Raises:
            DataError: files are missing or damaged, or images do not fit `image_size`.
        """
        if self.missing:
            raise DataError(self.missing)
        root, size = Path(self.path).expanduser(), (self.image_size[0], self.image_size[1])
        loading = Loading(
            workers=cpus() if self.workers is None else self.workers,
            prefetch=self.prefetch,
            allow_damaged=self.allow_damaged,
        )
        found = self._identities(root, size)
        try_one(found.source, int(found.numbers[0]), size)
        order = balanced_order(found.labels, self.split_seed)
        count = round(len(order) / 100) if self.val_size is None else self.val_size
        val, train = order[:count].sort().values, order[count:][: self.train_size].sort().values
        if not len(train):
            raise DataError(
                f"{root}: val_size={self.val_size} leaves none of {len(order):,} images to train "
                "with; lower it"
            )

        def part(places: Tensor, flip: bool = False) -> Stream:
            numbers, labels = found.numbers[places], found.labels[places]
            return stream(found.source, numbers, labels, size, loading, flip=flip)

        others = [root / f"{name}.bin" for name in KNOWN[1:] if (root / f"{name}.bin").is_file()]
        assert self._lfw is not None
        pairs = [pairs_at(at, size, loading, self.protocol) for at in (self._lfw, *others)]
        return Data(
            root.name,
            part(train, self.flip),
            part(val),
            pairs[0].images,
            classes=found.classes,
            mean=tuple(self.mean),
            std=tuple(self.std),
            pairs={one.name: one for one in pairs},
        )

    def _identities(self, root: Path, size: tuple[int, int]) -> Identities:
        """Returns all training images.

        Raises:
            DataError: there are fewer than two identities, or a pack is damaged.
        """
        if (root / RECORDS).is_file():
            return Identities(*read_pack(root, size))
        import torch

        people = [name for name in class_folders(root) if root / name != self._lfw]
        images = [[f"{name}/{image}" for image in images_below(root / name)] for name in people]
        images = [own for own in images if own]
        if len(images) < 2:
            raise DataError(
                f"{root} holds neither {RECORDS} nor folders of aligned images, one for each of at "
                "least two identities"
            )
        labels = torch.arange(len(images)).repeat_interleave(torch.tensor([*map(len, images)]))
        names = [image for own in images for image in own]
        source = Faces(ImageFiles.of(root, names), size)
        return Identities(source, torch.arange(len(names)), labels, len(images))
