"""Holds out training images for a criterion, which the training it watches does not see."""

from __future__ import annotations

from dataclasses import replace

from prunebench.datasets import Data, Images
from prunebench.datasets.in_memory import balanced_order
from prunebench.errors import DataError


def hold_out(data: Data, share: float, seed: int) -> tuple[Data, Images | None]:
    """Returns `data` without a `share` of its training images, and these; None for them at 0.

    Args:
        data: the splits; validation and test images stay as they are.
        share: fraction of the training images, classes balanced.
        seed: draws them.

    Raises:
        DataError: there are too few images to divide.
    """
    if share == 0:
        return data, None
    count = round(share * len(data.train))
    if count < 1 or len(data.train) - count < 1:
        raise DataError(
            f"criterion.holdout={share:g} of {len(data.train):,} training images leaves one side "
            "without any; choose another fraction, or 0"
        )
    order = balanced_order(data.train.labels, seed)
    return replace(data, train=data.train.at(order[count:])), data.train.at(order[:count])
