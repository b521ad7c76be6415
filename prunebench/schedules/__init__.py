"""Schedules: each option says when channels go.

`Schedule` is the interface of options that prune in steps, with training between or after them;
`TrainingSchedule` is that of options that prune while the network is trained.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.errors import require, require_choice

if TYPE_CHECKING:
    from prunebench.budgets import Budget
    from prunebench.contracts import Assignment, Dense, Observer, PruningObserver
    from prunebench.criteria import Criterion
    from prunebench.recipes import Phase

STARTS = ("scratch", "baseline")


@dataclass(frozen=True)
class Step:
    """One round of rank, choose, repair, slim and (short) fine-tuning.

    Attributes:
        name: unique within the run; names the stage in reports and checkpoints.
        groups: names of the groups pruned in this step.
        share: part of the way to the final budget that is done after this step, in [0, 1].
        epochs: epochs of the recipe's ``between`` phase right after the step; 0 = none.
        new_images: whether criterion and repair get other training images than in other steps.
    """

    name: str
    groups: tuple[str, ...]
    share: float
    epochs: int
    new_images: bool = False


@dataclass(frozen=True)
class Schedule(ABC):
    """When channels go; the schema of ``conf/schedule/*.yaml``."""

    #: class constants that config.load checks against the budget
    one_group_at_a_time = False
    repeats = False  # ranks a group more than once
    #: whether channels go while recipe.pruning trains; then it is a TrainingSchedule
    trains = False
    #: whether the slim network is trained from fresh weights, as ``recipe.baseline`` says
    redraws = False

    @property
    def pauses(self) -> bool:
        """Whether ``recipe.between`` trains after some of the steps."""
        return False

    @abstractmethod
    def steps(self, groups: Sequence[str]) -> list[Step]:
        """Returns the steps that prune `groups` (names, in forward order)."""

    def check_criterion(self, names: Mapping[str, str], criterion: Criterion) -> None:
        """Raises ConfigError if `criterion` does not suit; `names` has both options' names."""
        require(
            not criterion.watches,
            f"{names['criterion']} prunes while the network is trained; choose "
            f"schedule=during_training instead of {names['schedule']}",
        )

    def check_phase(self, phase: Phase) -> None:
        """Raises ConfigError if ``recipe.pruning`` does not suit."""
        return

    def tail(self) -> Observer | None:
        """Returns the observer of the fine-tuning, if the schedule needs one."""
        return None


@dataclass(frozen=True, kw_only=True)
class TrainingSchedule(Schedule):
    """Channels go while ``recipe.pruning`` trains; the network is slimmed when that is over.

    Attributes:
        start: the weights that training starts from: ``scratch``, the baseline's initial ones, or
            ``baseline``, its trained ones.
    """

    start: str

    trains = True

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require_choice("start", self.start, STARTS)

    def check_phase(self, phase: Phase) -> None:
        """Raises ConfigError if there is no epoch in which channels could go."""
        require(
            phase.epochs >= 1,
            "recipe.pruning.epochs must be at least 1, because channels are pruned in this phase",
        )

    def steps(self, groups: Sequence[str]) -> list[Step]:
        """Returns one step over all `groups`."""
        return [Step(name="training", groups=tuple(groups), share=1.0, epochs=0)]

    @abstractmethod
    def observer(
        self, criterion: Criterion, budget: Budget, dense: Dense, assignment: Assignment
    ) -> PruningObserver:
        """Returns the observer that watches the training and ends with a plan.

        Raises:
            PruningError: the criterion cannot serve this network or this training.
        """
