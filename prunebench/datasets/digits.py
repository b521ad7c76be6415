"""Loads handwritten digits that ship with scikit-learn: real data without a download."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.datasets import Arrays, Data
from prunebench.datasets.in_memory import InMemory, balanced_order
from prunebench.errors import DataError, require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PIXEL_MAX = 16


@cache
def shipped() -> NDArray[np.float64]:
    """Returns scikit-learn's file as an array with 64 pixels and the digit per row.

    ``load_digits`` would read the same file after importing other modules for a second.
    """
    import numpy as np

    package = find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).with_name("datasets") / "data" / "digits.csv.gz"
    return np.loadtxt(file, delimiter=",")


@dataclass(frozen=True, kw_only=True)
class Digits(InMemory):
    """Loads 1,797 grey 8 x 8 images of ten digits; the schema of ``conf/dataset/digits.yaml``.

    Attributes:
        size: height and width to enlarge the images to (bilinear); 8 leaves them as they are.
        test_size: number of images split off for the test set, classes balanced.
    """

    size: int
    test_size: int

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        super().__post_init__()
        require(self.size >= 8, f"size must be at least 8, got {self.size}")
        require(self.test_size >= 1, f"test_size must be at least 1, got {self.test_size}")

    def load(self) -> Data:
        """Reads and splits the images.

        Raises:
            DataError: the sizes leave too few images for training.
        """
        import torch
        from torch.nn import functional

        rows = torch.from_numpy(shipped())
        pixels = rows[:, :-1].reshape(-1, 1, 8, 8).float() * (255 / _PIXEL_MAX)
        if self.size != pixels.shape[-1]:
            pixels = functional.interpolate(pixels, size=(self.size, self.size), mode="bilinear")
        every = Arrays(pixels.round().to(torch.uint8), rows[:, -1].long())
        if self.test_size >= len(every):
            raise DataError(
                f"dataset digits: test_size={self.test_size} leaves nothing of the {len(every)} "
                "images to train on; lower it"
            )
        order = balanced_order(every.labels, self.split_seed)
        test, train = order[: self.test_size], order[self.test_size :]
        return self.data("digits", every.at(train), every.at(test), classes=10)
