"""Loads verification sets: LFW's folder with its list of pairs, or InsightFace's bins."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from prunebench.datasets.faces.aligned import Faces, stream, try_one
from prunebench.datasets.faces.bins import FOLDS, BinImages, read_bin
from prunebench.datasets.pairs import Pairs
from prunebench.datasets.stream import Loading
from prunebench.datasets.tree import ENDINGS, ImageFiles
from prunebench.errors import DataError

PAIRS = "pairs.txt"


class Listed(NamedTuple):
    """Holds one pair of the list: person and image number of each side."""

    first: tuple[str, int]
    second: tuple[str, int]

    @property
    def same(self) -> bool:
        """Whether both images show one person."""
        return self.first[0] == self.second[0]


def pairs_at(path: Path, size: tuple[int, int], loading: Loading, protocol: str) -> Pairs:
    """Returns the pairs of a folder or a bin.

    Args:
        path: a bin, or a folder with `PAIRS` and ``person/person_0001.jpg``.
        size: (height, width) that the network sees.
        loading: how images are read; no image may be damaged.
        protocol: of the test.

    Raises:
        DataError: files are missing or damaged, or the images do not fit `size`.
    """
    import torch

    loading = replace(loading, allow_damaged=0.0)
    if path.is_dir():
        return _of_folder(path, size, loading, protocol)
    images, same = read_bin(path)
    source = BinImages(str(path), size)
    try_one(source, 0, size)
    places = torch.arange(len(images))
    return Pairs(
        name=path.stem,
        images=stream(source, places, places, size, loading),
        first=places[::2],
        second=places[1::2],
        same=torch.tensor(same),
        folds=FOLDS,
        protocol=protocol,
    )


def read_pairs(path: Path) -> tuple[int, list[Listed]]:
    """Returns the number of folds of a list like LFW's ``pairs.txt``, and its pairs.

    The first line, ``10 300``, has the number of folds, and for each fold the number of pairs of
    one person, which is also that of pairs of two. The other lines are ``person i j`` or
    ``person i other j``.

    Raises:
        DataError: it cannot be read, or has other lines or another number of them.
    """
    try:
        rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error})") from None
    rows = [row for row in rows if row]
    head = [int(word) for word in rows[0] if word.isdigit()] if rows else []
    if not rows or len(head) != len(rows[0]) or len(head) not in (1, 2):
        raise DataError(f"{path}: the first line must say folds and pairs, such as '10 300'")
    folds, each = (1, head[0]) if len(head) == 1 else (head[0], head[1])
    pairs = [_listed(path, number, row) for number, row in enumerate(rows[1:], start=2)]
    if not pairs or len(pairs) != 2 * folds * each:
        raise DataError(
            f"{path} has {len(pairs):,} pairs; its first line says {folds} folds of {each} pairs "
            "of one person and as many of two"
        )
    return folds, pairs


def _listed(path: Path, number: int, row: Sequence[str]) -> Listed:
    """Returns the pair in line `number`."""
    numbers = [word for word in (row[1::2] if len(row) == 4 else row[1:]) if word.isdigit()]
    if len(row) not in (3, 4) or len(numbers) != 2:
        raise DataError(f"{path}: line {number} must read 'person i j' or 'person i other j'")
    other = row[2] if len(row) == 4 else row[0]
    return Listed((row[0], int(numbers[0])), (other, int(numbers[1])))


def _of_folder(root: Path, size: tuple[int, int], loading: Loading, protocol: str) -> Pairs:
    """Returns the pairs of a folder with images and their list."""
    import torch

    folds, listed = read_pairs(root / PAIRS)
    place: dict[tuple[str, int], int] = {}
    for image in (image for pair in listed for image in pair):
        place.setdefault(image, len(place))
    source = Faces(ImageFiles.of(root, [_file(root, *image) for image in place]), size)
    try_one(source, 0, size)
    places = torch.arange(len(place))
    return Pairs(
        name="lfw",
        images=stream(source, places, places, size, loading),
        first=torch.tensor([place[pair.first] for pair in listed]),
        second=torch.tensor([place[pair.second] for pair in listed]),
        same=torch.tensor([pair.same for pair in listed]),
        folds=folds,
        protocol=protocol,
    )


def _file(root: Path, person: str, number: int) -> str:
    """Returns the path, relative to `root`, of an image of `person`.

    Raises:
        DataError: it does not exist.
    """
    stem = os.path.join(person, f"{person}_{number:04d}")
    for ending in ENDINGS:
        if (root / (stem + ending)).is_file():
            return stem + ending
    raise DataError(f"{root} has no {stem} ({', '.join(ENDINGS)}), which {PAIRS} names")
