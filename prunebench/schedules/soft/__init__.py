"""Soft pruning: zeroes filters between epochs; they may come back in the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.errors import require
from prunebench.schedules import TrainingSchedule

if TYPE_CHECKING:
    from prunebench.budgets import Budget
    from prunebench.contracts import Assignment, Dense, Observer, PruningObserver
    from prunebench.criteria import Criterion


@dataclass(frozen=True, kw_only=True)
class Soft(TrainingSchedule):
    """Trains as ``recipe.pruning`` says and zeroes the lowest-scored filters between epochs.

    He et al., "Soft Filter Pruning for Accelerating Deep CNNs", IJCAI 2018. Each selection is made
    anew; the filters zeroed after the last epoch are cut.

    Attributes:
        every: epochs from one selection to the next; one always follows the last epoch.
        mask_gradients: whether zeroed filters get no gradient until the next selection (FPGM).
        zero_first: whether a selection is made and zeroed before the first epoch, too.
        tied: whether filters that write to a residual stream are zeroed as well, though they cannot
            be cut: in each layer by itself, the share that the budget takes. They stay in the slim
            network as zeros, which fine-tuning does not change.
    """

    every: int
    mask_gradients: bool = False
    zero_first: bool = False
    tied: bool = False

    repeats = True

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        super().__post_init__()
        require(self.every >= 1, f"every must be at least 1, got {self.every}")

    def check_criterion(self, names: Mapping[str, str], criterion: Criterion) -> None:
        """Raises ConfigError if `criterion` needs more than weights."""
        require(
            not criterion.watches and criterion.images_needed == 0,
            f"{names['schedule']} selects between epochs by weights alone, and "
            f"{names['criterion']} needs more; choose criterion=l2, l1, fpgm or slimming",
        )

    def observer(
        self, criterion: Criterion, budget: Budget, dense: Dense, assignment: Assignment
    ) -> PruningObserver:
        """Returns the observer that asks `criterion` and `budget` between epochs."""
        from prunebench.schedules.soft.observer import SoftObserver

        return SoftObserver(
            criterion,
            budget,
            dense,
            assignment,
            every=self.every,
            mask_gradients=self.mask_gradients,
            zero_first=self.zero_first,
            tied=self.tied,
        )

    def tail(self) -> Observer | None:
        """Returns the observer that keeps tied layers' zeros, which fine-tuning would change."""
        from prunebench.schedules.soft.zeros import ZerosStay

        return ZerosStay() if self.tied else None
