"""Pairs of images of which a network has to say whether both show the same person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.datasets.stream import Stream

if TYPE_CHECKING:
    from torch import Tensor

#: how pairs are scored and thresholds found; `measure.verification` carries them out
PROTOCOLS = ("insightface", "sphereface")


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """A verification set, such as LFW.

    Attributes:
        name: of the set.
        images: each once; an image's label is its own place among them.
        first, second: int64 [n], places of the two images of each pair.
        same: bool [n], whether they show one person.
        folds: number of equal parts, one behind the other, that are tested in turn.
        protocol: one of `PROTOCOLS`.
    """

    name: str
    images: Stream
    first: Tensor
    second: Tensor
    same: Tensor
    folds: int
    protocol: str

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.same)
