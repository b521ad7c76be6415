"""Iterative pruning: cuts a little of every group, several times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prunebench.errors import require
from prunebench.schedules import Schedule, Step


@dataclass(frozen=True, kw_only=True)
class Iterative(Schedule):
    """Prunes all groups in equal shares of the budget.

    Attributes:
        rounds: number of rank-and-prune rounds.
        epochs: epochs of short fine-tuning after each round but the last, which the run's own
            fine-tuning follows.
    """

    rounds: int
    epochs: int

    repeats = True

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require(self.rounds >= 2, f"rounds must be at least 2, got {self.rounds}")
        require(self.epochs >= 0, f"epochs must not be negative, got {self.epochs}")

    @property
    def pauses(self) -> bool:
        """Whether ``recipe.between`` trains between the rounds."""
        return self.epochs > 0

    def steps(self, groups: Sequence[str]) -> list[Step]:
        """Returns `rounds` steps over all groups."""
        return [
            Step(
                name=f"round{number}",
                groups=tuple(groups),
                share=number / self.rounds,
                epochs=self.epochs if number < self.rounds else 0,
            )
            for number in range(1, self.rounds + 1)
        ]
