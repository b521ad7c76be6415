"""Defines pairs of images for which a network must tell whether they show the same person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.datasets.stream import Stream

if TYPE_CHECKING:
    from torch import Tensor

#: ways to score pairs and choose thresholds; `measure.verification` implements them
PROTOCOLS = ("insightface", "sphereface")


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Holds a verification set, such as LFW.

    Attributes:
        name: of the set.
        images: each image once; its label is its place in the stream.
        first, second: int64 [n], places of the two images of each pair.
        same: bool [n], whether they show one person.
        folds: number of equal, consecutive parts, each of which is tested once.
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
