"""Pruning during training, by a criterion that watches it (AOFP, CAC)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.criteria import Criterion, TrainingCriterion
from prunebench.errors import require
from prunebench.schedules import TrainingSchedule

if TYPE_CHECKING:
    from prunebench.budgets import Budget
    from prunebench.contracts import Assignment, Dense, PruningObserver


@dataclass(frozen=True, kw_only=True)
class DuringTraining(TrainingSchedule):
    """Trains as ``recipe.pruning`` says while the criterion prunes."""

    def check_criterion(self, names: Mapping[str, str], criterion: Criterion) -> None:
        """Raises ConfigError unless `criterion` is one that watches training."""
        require(
            criterion.watches,
            f"{names['schedule']} needs a criterion that watches the training, and "
            f"{names['criterion']} does not; choose criterion=cac or aofp, or schedule=oneshot",
        )

    def observer(
        self, criterion: Criterion, budget: Budget, dense: Dense, assignment: Assignment
    ) -> PruningObserver:
        """Returns the criterion's own observer.

        Raises:
            PruningError: the criterion cannot serve this network or this training.
        """
        assert isinstance(criterion, TrainingCriterion)
        return criterion.observer(assignment)
