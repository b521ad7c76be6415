"""Soft pruning: filters are zeroed after every epoch and may come back in the next."""

from __future__ import annotations

from dataclasses import dataclass

from prunebench.errors import require
from prunebench.schedules.during_training import DuringTraining


@dataclass(frozen=True, kw_only=True)
class Soft(DuringTraining):
    """Trains as ``recipe.pruning`` says and zeroes the lowest-scored filters between epochs.

    He et al., "Soft Filter Pruning for Accelerating Deep CNNs", IJCAI 2018. No gradient is masked,
    and each time the selection is made anew; what is zero after the last epoch is cut.

    Attributes:
        every: epochs from one selection to the next; the last epoch is always followed by one.
    """

    every: int

    repeats = True
    selects = True

    def __post_init__(self) -> None:
        """Checks ranges."""
        super().__post_init__()
        require(self.every >= 1, f"every must be at least 1, got {self.every}")
