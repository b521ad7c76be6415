"""Reads labels from a list beside the images, as ImageNet's validation set has them.

It understands lines ``image class ...`` (with spaces, tabs or commas: Kaggle's
``LOC_val_solution.csv``, Tiny-ImageNet's ``val_annotations.txt``); ``image 65`` (Caffe's
``val.txt``, numbers from 0 in the order of the classes' names); and one class, or the devkit's
number, per line in the order of the images (``ILSVRC2012_validation_ground_truth.txt``, whose
``meta.mat`` must lie beside it).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from prunebench.errors import DataError

#: lists that are looked for in the data set's folder and in the folder with the images
KNOWN = (
    "val_annotations.txt",
    "LOC_val_solution.csv",
    "imagenet_2012_validation_synset_labels.txt",
    "ILSVRC2012_validation_ground_truth.txt",
    "data/ILSVRC2012_validation_ground_truth.txt",
    "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt",
    "val.txt",
)


def find_list(*folders: Path) -> Path | None:
    """Returns the first known list in `folders`; None if there is none."""
    paths = [folder / name for folder in folders for name in KNOWN]
    return next((path for path in paths if path.is_file()), None)


def listed_labels(path: Path, images: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Returns the label of each image.

    Args:
        path: of the list.
        images: paths of the images.
        classes: names of the classes, in the order of their labels.

    Raises:
        DataError: the list cannot be read, lacks an image, or names an unknown class.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error})") from None
    rows = [re.split(r"[\s,]+", line.strip()) for line in text.splitlines() if line.strip()]
    if rows and rows[0][0].lower() in ("imageid", "image", "filename"):
        rows = rows[1:]
    words = (
        _by_name(path, rows, images)
        if all(len(row) > 1 for row in rows)
        else _by_place(path, rows, images)
    )
    number = {name: label for label, name in enumerate(classes)}
    if all(word.isdigit() for word in words) and not {*words} <= {*classes}:
        counted = {str(label): label for label in range(len(classes))}
        number = _devkit(path, number) if len(rows[0]) == 1 else counted
    unknown = [word for word in words if word not in number]
    if unknown:
        raise DataError(
            f"{path} names '{unknown[0]}', which is none of the {len(classes)} classes of the "
            f"training set ({classes[0]}, ...)"
        )
    return [number[word] for word in words]


def _by_name(path: Path, rows: Sequence[list[str]], images: Sequence[str]) -> list[str]:
    """Returns the second word of each image's row; suffix and folder of the image are ignored."""
    known = {Path(row[0]).stem: row[1] for row in rows}
    lacking = [image for image in images if Path(image).stem not in known]
    if lacking:
        raise DataError(f"{path} has no line for {lacking[0]} ({len(lacking)} images in all)")
    return [known[Path(image).stem] for image in images]


def _by_place(path: Path, rows: Sequence[list[str]], images: Sequence[str]) -> list[str]:
    """Returns the first word of each row; there must be one row per image."""
    if len(rows) != len(images):
        raise DataError(f"{path} has {len(rows)} lines, and there are {len(images)} images")
    return [row[0] for row in rows]


def _devkit(path: Path, number: dict[str, int]) -> dict[str, int]:
    """Returns the devkit's number of each class -> its label."""
    from scipy.io import loadmat

    meta = path.with_name("meta.mat")
    if not meta.is_file():
        raise DataError(
            f"{path} numbers the classes as the devkit does, but meta.mat is not beside it; put "
            "it there, or use a list with class names (LOC_val_solution.csv)"
        )
    synsets = loadmat(str(meta), squeeze_me=True)["synsets"]
    own = {str(entry[0]): str(entry[1]) for entry in synsets}
    return {word: number[name] for word, name in own.items() if name in number}
