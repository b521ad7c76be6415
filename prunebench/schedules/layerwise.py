"""Layer-by-layer pruning: ranks and cuts each group in the network as pruned so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prunebench.errors import require
from prunebench.options.patterns import first_match, require_matches
from prunebench.schedules import Schedule, Step


@dataclass(frozen=True, kw_only=True)
class Layerwise(Schedule):
    """Prunes group after group in forward order.

    Attributes:
        epochs: epochs of short fine-tuning after each group.
        epochs_at: name pattern (``*`` matches anything) -> epochs after the groups that match it;
            the first matching pattern counts. None = no exceptions.
        new_images: whether every group is ranked and repaired on training images of its own.
    """

    epochs: int
    epochs_at: dict[str, int] | None
    new_images: bool = False

    one_group_at_a_time = True

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require(self.epochs >= 0, f"epochs must not be negative, got {self.epochs}")
        for pattern, epochs in (self.epochs_at or {}).items():
            require(epochs >= 0, f"epochs_at of '{pattern}' must not be negative, got {epochs}")

    @property
    def pauses(self) -> bool:
        """Whether ``recipe.between`` trains after any of the groups."""
        return any((self.epochs, *(self.epochs_at or {}).values()))

    def steps(self, groups: Sequence[str]) -> list[Step]:
        """Returns one step per group.

        Raises:
            PruningError: a pattern of `epochs_at` matches no group.
        """
        exceptions = self.epochs_at or {}
        require_matches("schedule.epochs_at", exceptions, groups)
        return [
            Step(
                name=f"layer{number:03d}-{group}",
                groups=(group,),
                share=1.0,
                epochs=first_match(group, exceptions, self.epochs),
                new_images=self.new_images,
            )
            for number, group in enumerate(groups)
        ]
