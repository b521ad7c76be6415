"""Reads MXNet's RecordIO, in which InsightFace packs its faces, from a memory-mapped file.

A record is 0xCED7230A, a word with its kind (3 bits) and length (29 bits), and its content, padded
to four bytes. Content that contains the magic number is split there: kinds 1, 2, 3 are the first,
middle and last part; kind 0 is a whole record. The content of an image is a header (number of
labels, label, two ids), the labels if there are several, and the encoded image.
"""

from __future__ import annotations

import mmap
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prunebench.datasets.stream import Unreadable
from prunebench.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    Offsets = np.ndarray[Any, np.dtype[np.int64]]

MAGIC = 0xCED7230A
_HEAD = struct.Struct("<II")
_LABELS = struct.Struct("<IfQQ")
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)


class Item(NamedTuple):
    """Holds the content of an image's record."""

    labels: tuple[float, ...]
    image: bytes


@dataclass(frozen=True)
class Records:
    """Reads a file of records; small to send to other processes, which map the file themselves.

    Attributes:
        path: of the file.
        offsets: int64, where record k begins; -1 if there is no record k.
    """

    path: str
    offsets: Offsets

    @classmethod
    def of(cls, path: Path) -> Records:
        """Returns the records of a file; if there is no index beside it, one is made and kept.

        Raises:
            DataError: the file or its index cannot be read, is cut short, or is of another format.
        """
        beside, kept = path.with_suffix(".idx"), path.with_name(f".{path.stem}.idx")
        index = next((file for file in (beside, kept) if file.is_file()), None)
        if index is None:
            offsets = _scan(path)
            lines = "".join(f"{key}\t{at}\n" for key, at in enumerate(offsets.tolist()))
            # Hidden files are no part of a data set's identity, so a run can still be resumed. In a
            # read-only folder the index is made again each time.
            with suppress(OSError):
                partial = kept.with_suffix(f".{os.getpid()}.partial")
                partial.write_text(lines, encoding="ascii")
                partial.replace(kept)
        else:
            offsets = _read_index(index)
        end = path.stat().st_size
        beyond = int((offsets >= end).sum())
        if beyond:
            raise DataError(
                f"{path} is cut short, or {index} is of another file: {beyond:,} of "
                f"{len(offsets):,} records would begin behind its {end:,} bytes"
            )
        return cls(str(path), offsets)

    def __len__(self) -> int:
        """Number of records."""
        return len(self.offsets)

    def item(self, key: int) -> Item:
        """Returns record `key`.

        Raises:
            Unreadable: it is damaged, cut short or missing.
        """
        if not 0 <= key < len(self.offsets) or self.offsets[key] < 0:
            raise Unreadable("the index does not have it")
        content, begin, end = _content(_mapped(self.path), int(self.offsets[key]))
        if end - begin < _LABELS.size:
            raise Unreadable("it is too short for a record of an image")
        count, label, _, _ = _LABELS.unpack_from(content, begin)
        image = begin + _LABELS.size + 4 * count
        if image > end:
            raise Unreadable(f"it is too short for its {count} labels")
        labels = (label,)
        if count:
            labels = struct.unpack_from(f"<{count}f", content, begin + _LABELS.size)
        return Item(labels, content[image:end])


@cache
def _mapped(path: str) -> mmap.mmap:
    """Returns the file, mapped once per process."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _content(content: mmap.mmap, at: int) -> tuple[mmap.mmap | bytes, int, int]:
    """Returns a buffer with the content of the record at byte `at`, and its begin and end there.

    Raises:
        Unreadable: no record begins there, or it is cut short.
    """
    kind, length = _head(content, at)
    if kind == _WHOLE:
        return content, at + _HEAD.size, at + _HEAD.size + length
    if kind != _FIRST:
        raise Unreadable(f"a record of kind {kind} cannot stand at byte {at:,}")
    parts = [content[at + _HEAD.size : at + _HEAD.size + length]]
    while kind != _LAST:
        at += _HEAD.size + length + -length % 4
        kind, length = _head(content, at)
        if kind not in (_MIDDLE, _LAST):
            raise Unreadable(f"a record of kind {kind} cannot stand at byte {at:,}")
        parts.append(content[at + _HEAD.size : at + _HEAD.size + length])
    # put back the magic numbers at which it was split
    joined = _HEAD.pack(MAGIC, 0)[:4].join(parts)
    return joined, 0, len(joined)


def _head(content: mmap.mmap, at: int) -> tuple[int, int]:
    """Returns kind and length of the record, or part of one, at byte `at`.

    Raises:
        Unreadable: none begins there, or it is cut short.
    """
    if at + _HEAD.size > len(content):
        raise Unreadable(f"it is cut short at byte {len(content):,}")
    magic, word = _HEAD.unpack_from(content, at)
    if magic != MAGIC:
        raise Unreadable(f"no record begins at byte {at:,}")
    kind, length = word >> 29, word & (1 << 29) - 1
    if at + _HEAD.size + length > len(content):
        raise Unreadable(f"it is cut short at byte {len(content):,}")
    return kind, length


def _scan(path: Path) -> Offsets:
    """Returns where the records begin, found by going through the file.

    Raises:
        DataError: it cannot be read, is cut short, or is no file of records.
    """
    import numpy as np

    found: list[int] = []
    at = 0
    try:
        content = _mapped(str(path))
        while at < len(content):
            kind, length = _head(content, at)
            if kind in (_WHOLE, _FIRST):
                found.append(at)
            at += _HEAD.size + length + -length % 4
    except Unreadable as error:
        raise DataError(f"{path}: record {len(found):,} is damaged: {error}") from None
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise DataError(f"{path} cannot be read ({error})") from None
    return np.array(found, np.int64)


def _read_index(path: Path) -> Offsets:
    """Returns where the records begin, by their keys.

    Raises:
        DataError: the file cannot be read, or is no index.
    """
    import numpy as np

    try:
        rows = np.array(path.read_bytes().split(), np.int64).reshape(-1, 2)
    except (OSError, ValueError, OverflowError) as error:
        raise DataError(
            f"{path} is no index of records ({error}); remove it to have it made"
        ) from None
    if not len(rows) or rows.min() < 0 or rows[:, 0].max() > 4 * len(rows):
        raise DataError(f"{path} is no index of records; remove it to have it made")
    offsets = np.full(int(rows[:, 0].max()) + 1, -1, np.int64)
    offsets[rows[:, 0]] = rows[:, 1]
    return offsets
