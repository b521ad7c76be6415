"""Keeps a network's predictions for every test image, in files beside the report."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from prunebench.errors import DataError
from prunebench.records.jsonfile import write_bytes

#: folder beside the report, with a file per stage
PREDICTIONS = "predictions"


@dataclass(frozen=True, eq=False)
class Predictions:
    """Holds predictions in the order of the test set.

    Attributes:
        top1: predicted class, int64 [images].
        correct: whether it is the label, bool [images].
    """

    top1: NDArray[np.int64]
    correct: NDArray[np.bool_]

    def write(self, path: Path) -> None:
        """Writes a file of about one byte per image, atomically."""
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
    """Returns the predictions at `stage` of the run with this report; None if it kept none.

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
