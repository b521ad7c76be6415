"""Global ranking: keeps the best-scored fraction of all channels, in whatever group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.budgets import Budget
from prunebench.budgets.counts import best, channels, step_keep
from prunebench.budgets.search import global_order, largest_within, leading
from prunebench.contracts import Dense, Limit
from prunebench.errors import PruningError, require

if TYPE_CHECKING:
    from prunebench.channels import ChannelMap, Plan
    from prunebench.contracts import GroupRank


@dataclass(frozen=True, kw_only=True)
class GlobalRanking(Budget):
    """Keeps the best-scored channels of all groups together; floors count towards the total.

    Attributes:
        keep: fraction of the dense channels of all groups that stays, in (0, 1].
        floor_share: least share of its dense channels that a group keeps, in [0, 1]; without it
            scores may leave a layer a single channel.
        strict: whether only channels stay that score above the best of the
            int(total * (1 - keep)) + 1 lowest, as in Network Slimming's code: one channel fewer,
            and none that ties with it. Floors keep some more, where that code empties a layer.
    """

    keep: float
    floor_share: float = 0.0
    strict: bool = False

    needs_comparable = True
    limits_training = True

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        super().__post_init__()
        require(0 < self.keep <= 1, f"keep must lie in (0, 1], got {self.keep}")

    def choose(
        self, cmap: ChannelMap, ranks: Mapping[str, GroupRank], dense: Dense, *, share: float
    ) -> Plan:
        """Returns the largest plan, by score, of at most int(total * keep) channels.

        Raises:
            PruningError: the floors alone keep more than that.
        """
        from prunebench.channels import Plan

        total = sum(dense.sizes[name] for name in ranks)
        target = int(total * step_keep(self.keep, share) + 1e-9)
        order = global_order(ranks)
        sizes = {name: len(rank.scores) for name, rank in ranks.items()}

        def amount(count: int) -> int:
            return sum(leading(self, order, count, sizes, dense.sizes).values())

        found = largest_within(target, len(order) + 1, amount)
        if self.strict:
            found = above_threshold(ranks, int(total * share * (1 - self.keep) + 1e-9))
        elif found < 0:
            raise PruningError(
                f"budget.keep={self.keep:g} asks for at most {target} of {total} channels, and "
                f"budget.floor={self.floor} and budget.floor_share={self.floor_share:g} with "
                f"budget.divisor={self.divisor} keep {amount(0)}"
            )
        counts = leading(self, order, found, sizes, dense.sizes)
        return Plan({name: best(rank.scores, counts[name]) for name, rank in ranks.items()})

    def limits(self, cmap: ChannelMap, dense: Dense) -> tuple[Limit, ...]:
        """Returns one limit: the number of channels of all groups together."""
        sizes = {group.name: group.size for group in self.select(cmap)}
        target = int(sum(sizes.values()) * self.keep + 1e-9)
        return (Limit("channels", target, lambda plan: channels(sizes, plan)),)


def above_threshold(ranks: Mapping[str, GroupRank], removed: int) -> int:
    """Returns how many channels score above the one at place `removed` (from 0, ascending)."""
    import torch

    scores = torch.cat([rank.scores for rank in ranks.values()]).sort().values
    threshold = scores[min(removed, len(scores) - 1)]
    return int((scores > threshold).sum())
