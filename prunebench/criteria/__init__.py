"""Criteria: each option says how important every channel of a group is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunebench.contracts import Evidence as Evidence
from prunebench.contracts import GroupRank as GroupRank
from prunebench.errors import PruningError

if TYPE_CHECKING:
    from torch import nn

    from prunebench.channels import ChannelGroup, ChannelMap, Example
    from prunebench.contracts import Assignment, PruningObserver
    from prunebench.recipes import Phase


@dataclass(frozen=True)
class Criterion(ABC):
    """How important each channel is; the schema of ``conf/criterion/*.yaml``."""

    @property
    def images_needed(self) -> int:
        """Number of training images to put into the evidence; 0 when weights suffice."""
        return 0

    #: whether these images hold as many of each class; a field where an option leaves the choice
    class_balanced = False
    #: fraction of the training images that it keeps out of a training that it watches; likewise
    holdout = 0.0
    #: class constants that config.load checks against budget and schedule, before any training
    decides = False  # rank() fills GroupRank.kept, so budget=own may be used
    decides_by_degrees = False  # and GroupRank.degrees, so that budgets may search the settings
    decides_in_rounds = False  # the decision is one of several, with training between
    comparable = True  # scores of different groups are on one scale, so budgets may rank globally
    reads_logits = False  # asks what the network answers for a label
    watches = False  # prunes while a network is trained: it is a TrainingCriterion

    @abstractmethod
    def rank(self, evidence: Evidence) -> dict[str, GroupRank]:
        """Ranks every group of the evidence, by name.

        Raises:
            PruningError: the criterion cannot serve this network (the message names the layer).
        """

    def unscored(
        self, network: nn.Module, cmap: ChannelMap, groups: Sequence[ChannelGroup]
    ) -> dict[str, str]:
        """Returns which of `groups` it has no score for, by name, and why: they stay whole.

        Asked once, of the network before any cut.

        Args:
            network: in eval mode.
            cmap: its channel map.
            groups: those that the budget may prune.
        """
        return {}

    def arranged(self, network: nn.Module, example: Example) -> nn.Module:
        """Returns a network that computes the same and suits the criterion better; else `network`.

        Asked once, before any cut; a schedule that trains prunes `network` itself.

        Args:
            network: in eval mode.
            example: input to trace and compare with.

        Raises:
            PruningError: no such network can be made.
        """
        return network

    def check_phase(self, phase: Phase) -> None:
        """Raises ConfigError where ``recipe.pruning`` does not suit."""
        return


@dataclass(frozen=True)
class TrainingCriterion(Criterion):
    """A criterion that watches a training and prunes in its course."""

    watches = True

    @abstractmethod
    def observer(self, assignment: Assignment) -> PruningObserver:
        """Returns what looks on at the training and ends with a plan.

        Raises:
            PruningError: the criterion cannot serve this network or this training.
        """

    def rank(self, evidence: Evidence) -> dict[str, GroupRank]:
        """Refuses: there are no scores without a training.

        Raises:
            PruningError: always.
        """
        raise PruningError(
            f"criterion={type(self).__name__.lower()} prunes while the network is trained; "
            "choose schedule=during_training, or another criterion"
        )


def __getattr__(name: str) -> Any:
    """Imports an option's class when it is asked for by name alone."""
    from prunebench.options import option_class

    return option_class("criterion", name)


def __dir__() -> list[str]:
    """Returns the names that there are, the options' classes with them."""
    from prunebench.options import option_classes

    return sorted({*globals(), *option_classes("criterion")})
