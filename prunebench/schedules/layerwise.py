"""Layer-by-layer pruning, each group on the network as pruned so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prunebench.errors import require
from prunebench.schedules import Schedule, Step


@dataclass(frozen=True, kw_only=True)
class Layerwise(Schedule):
    """Prunes group after group in forward order.

    Attributes:
        epochs: of short fine-tuning after each group.
    """

    epochs: int

    one_group_at_a_time = True

    def __post_init__(self) -> None:
        """Checks ranges."""
        require(self.epochs >= 0, f"epochs must not be negative, got {self.epochs}")

    def steps(self, groups: Sequence[str]) -> list[Step]:
        """Returns one step per group."""
        return [
            Step(name=f"layer{number:03d}-{group}", groups=(group,), share=1.0, epochs=self.epochs)
            for number, group in enumerate(groups)
        ]
