"""Pruning in the course of a training that the criterion watches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prunebench.errors import require_choice
from prunebench.schedules import Schedule, Step

STARTS = ("scratch", "baseline")


@dataclass(frozen=True, kw_only=True)
class DuringTraining(Schedule):
    """Trains as ``recipe.pruning`` says while the criterion prunes; slims when that is over.

    Attributes:
        start: ``scratch``: from the baseline's initial weights; ``baseline``: from its trained
            ones.
    """

    start: str

    trains = True

    def __post_init__(self) -> None:
        """Checks ranges."""
        require_choice("start", self.start, STARTS)

    def steps(self, groups: Sequence[str]) -> list[Step]:
        """Returns one step over all `groups`."""
        return [Step(name="training", groups=tuple(groups), share=1.0, epochs=0)]
