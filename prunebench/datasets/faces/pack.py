"""Reads InsightFace's packs: ``train.rec``, ``train.idx`` and ``property``.

Record 0 holds two numbers, the end of the images and the end of the identities. The records from
the first to the second are identities; each holds the range of its images, begin and end.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.datasets.faces.aligned import decoded
from prunebench.datasets.faces.recordio import Item, Records
from prunebench.datasets.stream import Unreadable
from prunebench.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

RECORDS, PROPERTY = "train.rec", "property"


@dataclass(frozen=True)
class Packed:
    """Reads the images of a pack by the numbers of their records; a `Source`.

    Attributes:
        records: of the pack.
        size: (height, width) that the network sees.
    """

    records: Records
    size: tuple[int, int]

    def name(self, number: int) -> str:
        """Returns the file's name and the record's number."""
        return f"{RECORDS} record {number}"

    def read(self, number: int) -> Image:
        """Returns the image of record `number`.

        Raises:
            Unreadable: it is damaged, or of a size that must not be cropped.
        """
        return decoded(self.records.item(number).image, self.size)


def read_pack(root: Path, size: tuple[int, int]) -> tuple[Packed, Tensor, Tensor, int]:
    """Returns a source of a pack's images, their records' numbers and labels, and the classes.

    Raises:
        DataError: a file is missing, damaged or cut short, or ``property`` says something else.
    """
    import torch

    classes, stored = read_property(root / PROPERTY)
    records = Records.of(root / RECORDS)
    numbers, labels = _labels(records)
    found = int(labels.max()) + 1
    if found != classes or int(labels.min()) < 0:
        raise DataError(
            f"{root / PROPERTY} says {classes:,} identities; {RECORDS} has labels from "
            f"{int(labels.min())} to {found - 1}"
        )
    try:
        Packed(records, stored).read(numbers[0])
    except Unreadable as error:
        raise DataError(
            f"{root / PROPERTY} says {stored[0]} x {stored[1]}, but {RECORDS} record "
            f"{numbers[0]}: {error}"
        ) from None
    return Packed(records, size), torch.tensor(numbers), labels, classes


def read_property(path: Path) -> tuple[int, tuple[int, int]]:
    """Returns the number of identities, and (height, width) of the images.

    Raises:
        DataError: the file is missing or says something else.
    """
    try:
        words = path.read_text(encoding="utf-8").strip().split(",")
    except (OSError, UnicodeDecodeError):
        words = []
    if len(words) != 3 or not all(word.strip().isdigit() for word in words):
        raise DataError(
            f"{path} must hold one line 'identities,height,width', such as 10572,112,112"
        )
    classes, height, width = map(int, words)
    return classes, (height, width)


def _labels(records: Records) -> tuple[list[int], Tensor]:
    """Returns the record numbers of all images, and their labels."""
    import torch

    first = _item(records, 0)
    if len(first.labels) < 2:  # the file has no records for identities
        numbers = [key for key in range(len(records)) if records.offsets[key] >= 0]
        labels = torch.tensor([_item(records, key).labels[0] for key in numbers])
        return numbers, labels.long()
    end, last = (int(label) for label in first.labels[:2])
    if not 1 < end < last <= len(records):
        raise DataError(
            f"{records.path}: record 0 says that identities are {end:,} to {last - 1:,}; the index "
            f"has {len(records):,} records"
        )
    labels = torch.full((end,), -1, dtype=torch.int64)
    for key in range(end, last):
        begin, behind = (int(label) for label in _item(records, key).labels[:2])
        if not 1 <= begin <= behind <= end:
            raise DataError(f"{records.path}: record {key} says its images are {begin} to {behind}")
        if begin < behind:
            # every image has a label; that of an identity's first image holds for all of them
            labels[begin:behind] = int(_item(records, begin).labels[0])
    numbers = [int(key) for key in (labels >= 0).nonzero()]
    if not numbers:
        raise DataError(f"{records.path} has no images")
    return numbers, labels[labels >= 0]


def _item(records: Records, key: int) -> Item:
    """Returns a record that must exist.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return records.item(key)
    except Unreadable as error:
        raise DataError(f"{records.path}: record {key:,} cannot be read: {error}") from None
