"""Two targets at once, MACs and parameters: the slimmed network may exceed neither."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.budgets import Budget
from prunebench.budgets.macs import Macs
from prunebench.budgets.params import Params
from prunebench.budgets.target import ALLOCATIONS, Target
from prunebench.contracts import Dense, Limit
from prunebench.errors import require, require_choice

if TYPE_CHECKING:
    from prunebench.channels import ChannelMap, Plan
    from prunebench.contracts import GroupRank


@dataclass(frozen=True, kw_only=True)
class MacsParams(Budget):
    """Keeps as many channels as a number of MACs and a number of parameters both allow.

    Attributes:
        macs, params: up to 1 the fraction of the dense network's count, above 1 the count itself.
        allocation: ``uniform`` gives every group one keep ratio, to within one channel; ``global``
            keeps the best-scored channels, in whatever group.
        floor_share: least share of its dense channels that a group keeps under ``global``, in
            [0, 1].
    """

    macs: float
    params: float
    allocation: str = "uniform"
    floor_share: float = 0.0

    limits_training = True

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        super().__post_init__()
        require(self.macs > 0, f"macs must be positive, got {self.macs}")
        require(self.params > 0, f"params must be positive, got {self.params}")
        require_choice("allocation", self.allocation, ALLOCATIONS)

    @property
    def needs_comparable(self) -> bool:  # type: ignore[override]
        """Whether channels of different groups are ranked against each other."""
        return self.allocation == "global"

    def choose(
        self, cmap: ChannelMap, ranks: Mapping[str, GroupRank], dense: Dense, *, share: float
    ) -> Plan:
        """Returns the largest plan whose slimmed network stays within both targets.

        Raises:
            PruningError: one of the targets cannot be met.
        """
        plans = [part.choose(cmap, ranks, dense, share=share) for part in self._parts()]
        # both plans are of one nested family, so the smaller one meets both targets
        return min(plans, key=lambda plan: sum(len(kept) for kept in plan.kept.values()))

    def limits(self, cmap: ChannelMap, dense: Dense) -> tuple[Limit, ...]:
        """Returns both targets as limits.

        Raises:
            PruningError: a target lies above the dense network's count.
        """
        return tuple(limit for part in self._parts() for limit in part.limits(cmap, dense))

    def _parts(self) -> tuple[Target, Target]:
        """Returns the two budgets that this one combines."""
        return self._part(Macs, self.macs), self._part(Params, self.params)

    def _part(self, kind: type[Target], keep: float) -> Target:
        return kind(
            keep=keep,
            allocation=self.allocation,
            scope=self.scope,
            exclude=self.exclude,
            floor=self.floor,
            floor_share=self.floor_share,
            divisor=self.divisor,
        )
