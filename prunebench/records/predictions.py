"""What a network says to every image of the test set, kept beside the report."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from prunebench.errors import DataError
from prunebench.records.jsonfile import write_bytes

#: folder beside the report, a file for each stage
PREDICTIONS = "predictions"


@dataclass(frozen=True, eq=False)
class Predictions:
    """Answers in the order of the test set.

    Attributes:
        top1: class that ranks first, [images].
        correct: whether that is the label, [images] of bool.
    """

    top1: NDArray[np.int64]
    correct: NDArray[np.bool_]

    def write(self, path: Path) -> None:
        """Writes a file of about a byte an image, whole or not at all."""
        kind = np.min_scalar_type(int(self.top1.max(initial=0)))
        file = io.BytesIO()
        np.savez_compressed(
            file,
            top1=self.top1.astype(kind),
            correct=np.packbits(self.correct),
            images=np.array(len(self.top1)),
        )
        write_bytes(path, file.getvalue())


def read_predictions(report: Path, stage: str) -> Predictions | None:
    """Returns what the network of `stage` said; None where the run kept no answers.

    Raises:
        DataError: the file is damaged.
    """
    path = report.parent / PREDICTIONS / f"{stage}.npz"
    if not path.is_file():
        return None
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            images = int(file["images"])
            correct = np.unpackbits(file["correct"], count=images).astype(bool)
            return Predictions(top1=file["top1"].astype(np.int64), correct=correct)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise DataError(f"{path} is damaged ({error})") from None
