"""Own: takes the criterion's own decision, such as FOAD's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.budgets import Budget
from prunebench.budgets.counts import at_least
from prunebench.contracts import Dense
from prunebench.errors import PruningError

if TYPE_CHECKING:
    from prunebench.channels import ChannelMap, Plan
    from prunebench.contracts import GroupRank


@dataclass(frozen=True)
class Own(Budget):
    """Keeps what the criterion decides to keep; floors and divisor add the best-scored others.

    Attributes:
        floor_share: least share of its dense channels that a group keeps, in [0, 1].
    """

    floor_share: float = 0.0

    needs_decision = True

    def choose(
        self, cmap: ChannelMap, ranks: Mapping[str, GroupRank], dense: Dense, *, share: float
    ) -> Plan:
        """Returns the criterion's decision.

        Args:
            cmap: not used.
            ranks: group name -> rank, each with a decision.
            dense: the counts of the unpruned network, for the floors.
            share: 0 keeps all channels; any other value takes the whole decision, in every round.

        Raises:
            PruningError: the criterion made no decision for a group.
        """
        from prunebench.channels import Plan

        if share == 0:
            return Plan({name: tuple(range(len(rank.scores))) for name, rank in ranks.items()})
        return Plan(
            {name: self._kept(name, rank, dense.sizes[name]) for name, rank in ranks.items()}
        )

    def _kept(self, name: str, rank: GroupRank, dense: int) -> tuple[int, ...]:
        """Returns the decision for a group, filled up to floor and divisor."""
        if rank.kept is None:
            raise PruningError(
                f"budget=own needs a criterion that decides, and this one made no decision for "
                f"{name}; choose budget=uniform, per_layer, macs or params"
            )
        return at_least(self, rank, rank.kept, dense)
