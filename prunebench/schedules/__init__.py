"""Schedules: each option says when channels go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One round of rank, choose, repair, slim and (short) fine-tuning.

    Attributes:
        name: unique within the run; names the stage in reports and checkpoints.
        groups: names of the groups pruned in this step.
        share: how much of the way to the final budget this step goes, in (0, 1].
        epochs: of the recipe's ``between`` phase right after the step; 0 = none.
    """

    name: str
    groups: tuple[str, ...]
    share: float
    epochs: int


@dataclass(frozen=True)
class Schedule(ABC):
    """When channels go; the schema of ``conf/schedule/*.yaml``."""

    #: class constants that config.load checks against the budget
    one_group_at_a_time = False
    repeats = False  # ranks the same group more than once
    trains = False  # channels go while recipe.pruning trains; the criterion watches
    selects = False  # with trains: the schedule watches, and asks the criterion between epochs

    @abstractmethod
    def steps(self, groups: Sequence[str]) -> list[Step]:
        """Returns the steps that prune `groups` (names, in forward order)."""
