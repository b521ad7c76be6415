"""Criteria: each option says how important every channel of a group is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prunebench.errors import PruningError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.budgets import Limit
    from prunebench.channels import ChannelGroup, ChannelMap
    from prunebench.observers import PruningObserver
    from prunebench.recipes import Phase


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
        counts: what the criterion counted on the way, for the record.
    """

    scores: Tensor
    kept: tuple[int, ...] | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


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


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What a criterion that prunes during training is given.

    Attributes:
        cmap: channel map of the network that is trained.
        groups: the groups it may prune.
        limits: what it has to reach; none where it decides by itself when to stop.
        floors: group name -> fewest channels to keep.
        seed: of the run.
        epochs: of the training it watches.
        steps: per epoch.
        images: per epoch.
        log: receives a row whenever channels go.
    """

    cmap: ChannelMap
    groups: tuple[ChannelGroup, ...]
    limits: tuple[Limit, ...]
    floors: Mapping[str, int]
    seed: int
    epochs: int
    steps: int
    images: int
    log: Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class TrainingCriterion(Criterion):
    """A criterion that watches a training and prunes in its course."""

    @abstractmethod
    def observer(self, assignment: Assignment) -> PruningObserver:
        """Returns what looks on at the training and ends with a plan.

        Raises:
            PruningError: the criterion cannot serve this network or this training.
        """

    def check_phase(self, phase: Phase) -> None:
        """Raises ConfigError where the training in which pruning happens does not suit."""

    def rank(self, evidence: Evidence) -> dict[str, GroupRank]:
        """Refuses: there are no scores without a training.

        Raises:
            PruningError: always.
        """
        raise PruningError(
            f"criterion={type(self).__name__.lower()} prunes while the network is trained; "
            "choose schedule=during_training, or another criterion"
        )
