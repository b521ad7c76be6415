"""Criteria: each option scores how important every channel of a group is.

`Criterion` is the interface; README.md beside this file says how to write one.
"""

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

    #: whether these images hold equally many of each class; an option may make it a field
    class_balanced = False
    #: fraction of the training images that it holds out of the training; likewise
    holdout = 0.0
    #: from here on: class constants that config.load checks against budget and schedule
    decides = False  # rank() fills GroupRank.kept, so budget=own may be used
    decides_by_degrees = False  # and GroupRank.degrees, so that budgets may search the settings
    decides_in_rounds = False  # its decision is meant for rounds with training between
    comparable = True  # scores of different groups are on one scale, so budgets may rank globally
    reads_logits = False  # needs a network that returns class scores
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
        """Returns the groups it cannot score, by name, and why; they stay whole.

        Called once, before any cut.

        Args:
            network: the network, in eval mode.
            cmap: its channel map.
            groups: the groups that the budget may prune.
        """
        return {}

    def arranged(self, network: nn.Module, example: Example) -> nn.Module:
        """Returns an equal network that suits the criterion better, or `network` itself.

        Runs call it once, before any cut, unless the schedule trains while it prunes.
        `prunebench.prune`, whose plan counts the channels of the given network, does not.

        Args:
            network: the network, in eval mode.
            example: input to trace and compare with.

        Raises:
            PruningError: no such network can be made.
        """
        return network

    def check_phase(self, phase: Phase) -> None:
        """Raises ConfigError if ``recipe.pruning`` does not suit the criterion."""
        return


@dataclass(frozen=True)
class TrainingCriterion(Criterion):
    """A criterion that prunes while the network is trained."""

    watches = True

    @abstractmethod
    def observer(self, assignment: Assignment) -> PruningObserver:
        """Returns the observer that watches the training and ends with a plan.

        Raises:
            PruningError: the criterion cannot serve this network or this training.
        """

    def rank(self, evidence: Evidence) -> dict[str, GroupRank]:
        """Raises: there are no scores without training.

        Raises:
            PruningError: always.
        """
        raise PruningError(
            f"criterion={type(self).__name__.lower()} prunes while the network is trained; "
            "choose schedule=during_training, or another criterion"
        )


def __getattr__(name: str) -> Any:
    """Imports the class of an option on first access, as in ``criteria.Foad``."""
    from prunebench.options import option_class

    return option_class("criterion", name)


def __dir__() -> list[str]:
    """Returns the names of the module, including the options' classes."""
    from prunebench.options import option_classes

    return sorted({*globals(), *option_classes("criterion")})
