"""Per layer: a keep ratio for each name pattern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.budgets import Budget
from prunebench.budgets.counts import best, kept_count, require_effect, step_keep
from prunebench.contracts import Dense
from prunebench.errors import require
from prunebench.options.patterns import first_match, require_matches

if TYPE_CHECKING:
    from prunebench.channels import ChannelMap, Plan
    from prunebench.contracts import GroupRank


@dataclass(frozen=True, kw_only=True)
class PerLayer(Budget):
    """Keeps the fraction of a group's dense channels that the first matching pattern gives.

    Attributes:
        keep: name pattern (``*`` matches anything) -> fraction of channels kept, in (0, 1].
        otherwise: fraction kept in groups that match no pattern, in (0, 1].
        rounding: ``kept``: int(C * keep) of C channels stay; ``removed``: int(C * (1 - keep)) go.
    """

    keep: dict[str, float]
    otherwise: float = 0.5
    rounding: str = "kept"

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        super().__post_init__()
        require(0 < self.otherwise <= 1, f"otherwise must lie in (0, 1], got {self.otherwise}")
        for pattern, keep in self.keep.items():
            require(0 < keep <= 1, f"keep of '{pattern}' must lie in (0, 1], got {keep}")

    def choose(
        self, cmap: ChannelMap, ranks: Mapping[str, GroupRank], dense: Dense, *, share: float
    ) -> Plan:
        """Returns the best-scored channels, size * keep of them, of every ranked group.

        Raises:
            PruningError: a pattern matches no group, or no group loses a channel.
        """
        from prunebench.channels import Plan

        keep = self._by_group([group.name for group in self.select(cmap)])
        require_effect(self, cmap, dense, keep)
        return Plan(
            {
                name: best(
                    rank.scores,
                    kept_count(
                        self, dense.sizes[name] * step_keep(keep[name], share), len(rank.scores)
                    ),
                )
                for name, rank in ranks.items()
            }
        )

    def _by_group(self, names: Sequence[str]) -> dict[str, float]:
        """Returns group name -> keep ratio."""
        require_matches("budget.keep", self.keep, names)
        return {name: first_match(name, self.keep, self.otherwise) for name in names}
