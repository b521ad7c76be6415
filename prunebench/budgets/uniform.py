"""Uniform: the same keep ratio in every group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.budgets import Budget
from prunebench.budgets.counts import best, channels, kept_count, require_effect, step_keep
from prunebench.contracts import Dense, Limit
from prunebench.errors import require

if TYPE_CHECKING:
    from prunebench.channels import ChannelMap, Plan
    from prunebench.contracts import GroupRank


@dataclass(frozen=True, kw_only=True)
class Uniform(Budget):
    """Keeps the same fraction of the dense channels of every group.

    Attributes:
        keep: fraction of channels kept, in (0, 1].
        rounding: ``kept``: int(C * keep) of C channels stay; ``removed``: int(C * (1 - keep)) go.
    """

    keep: float
    rounding: str = "kept"

    limits_training = True

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        super().__post_init__()
        require(0 < self.keep <= 1, f"keep must lie in (0, 1], got {self.keep}")

    def choose(
        self, cmap: ChannelMap, ranks: Mapping[str, GroupRank], dense: Dense, *, share: float
    ) -> Plan:
        """Returns the best-scored channels, size * keep of them, of every ranked group.

        Raises:
            PruningError: the ratio removes no channel from any group.
        """
        from prunebench.channels import Plan

        require_effect(self, cmap, dense, dict.fromkeys(dense.sizes, self.keep))
        keep = step_keep(self.keep, share)
        return Plan(
            {
                name: best(
                    rank.scores, kept_count(self, dense.sizes[name] * keep, len(rank.scores))
                )
                for name, rank in ranks.items()
            }
        )

    def limits(self, cmap: ChannelMap, dense: Dense) -> tuple[Limit, ...]:
        """Returns one limit: the sum of the floors, below which no group can go."""
        sizes = {group.name: group.size for group in self.select(cmap)}
        target = sum(self.floors(cmap).values())
        return (Limit("channels", target, lambda plan: channels(sizes, plan)),)

    def floors(self, cmap: ChannelMap) -> dict[str, int]:
        """Returns group name -> kept channels: the ratio itself is the floor of every group."""
        return {
            group.name: kept_count(self, group.size * self.keep, group.size)
            for group in self.select(cmap)
        }
