"""Criteria: each option says how important every channel of a group is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.channels import ChannelGroup, ChannelMap


@dataclass(frozen=True)
class Evidence:
    """What a criterion may look at.

    Attributes:
        network: the network as pruned so far, in eval mode; a criterion must leave it unchanged.
        cmap: its channel map.
        groups: the groups to rank (a subset of ``cmap.groups``).
        images: normalised training images, float32 [n, C, H, W], unaugmented, in a seeded
            random order, on the network's device. Never validation or test images.
        labels: int64 [n].
        seed: for criteria that draw at random.
    """

    network: nn.Module
    cmap: ChannelMap
    groups: tuple[ChannelGroup, ...]
    images: Tensor
    labels: Tensor
    seed: int

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields (images, labels) in batches of at most `size`."""
        for start in range(0, len(self.labels), size):
            yield self.images[start : start + size], self.labels[start : start + size]


@dataclass(frozen=True)
class GroupRank:
    """How the classes of one group compare.

    Attributes:
        scores: float64 [group.size] on the CPU; higher = keep; finite.
        kept: the criterion's own decision, ascending class indices; None if it makes none.
    """

    scores: Tensor
    kept: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Criterion(ABC):
    """How important each channel is; the schema of ``conf/criterion/*.yaml``."""

    #: number of training images the criterion wants to see (0 = it looks at weights only)
    @property
    def images_needed(self) -> int:
        """Number of training images to put into the evidence; 0 when weights suffice."""
        return 0

    #: class constants that config.load checks against the budget, before any training
    decides = False  # rank() fills GroupRank.kept, so budget=own may be used
    comparable = True  # scores of different groups are on one scale, so budgets may rank globally

    @abstractmethod
    def rank(self, evidence: Evidence) -> dict[str, GroupRank]:
        """Ranks every group of the evidence, by name.

        Raises:
            PruningError: the criterion cannot serve this network (the message names the layer).
        """
