"""A budget that is a number of MACs or parameters, met on the counts of the slimmed network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prunebench.budgets import Budget, Dense
from prunebench.budgets.counts import best, kept_count, step_keep
from prunebench.budgets.search import Kept, global_order, keep_levels, largest_within, leading
from prunebench.errors import PruningError, require, require_choice

if TYPE_CHECKING:
    from prunebench.channels import ChannelMap, Plan
    from prunebench.criteria import GroupRank

ALLOCATIONS = ("uniform", "global")


@dataclass(frozen=True, kw_only=True)
class Target(Budget):
    """Keeps as much as stays within a target, found by bisection.

    With ``uniform`` allocation the groups that are still as wide as in the dense network but are
    not ranked in this step count as cut by the same ratio: a layer-by-layer schedule will come to
    them. Each layer's own step then finds the same ratio or, as rounding leaves room, a larger one,
    so the last step still ends within the target.

    Attributes:
        keep: up to 1 the fraction of the dense network's count, above 1 the count itself.
        allocation: ``uniform`` gives every group one keep ratio, ``global`` keeps the best-scored
            channels wherever they are.
    """

    keep: float
    allocation: str

    #: what is counted, for messages
    unit: ClassVar[str]

    def __post_init__(self) -> None:
        """Checks ranges."""
        super().__post_init__()
        require(self.keep > 0, f"keep must be positive, got {self.keep}")
        require_choice("allocation", self.allocation, ALLOCATIONS)

    @property
    def needs_comparable(self) -> bool:  # type: ignore[override]
        """Whether channels of different groups are ranked against each other."""
        return self.allocation == "global"

    @abstractmethod
    def amount(self, cmap: ChannelMap, plan: Plan) -> int:
        """Returns the count of the network slimmed by `plan`."""

    @abstractmethod
    def dense_amount(self, dense: Dense) -> int:
        """Returns the count of the unpruned network."""

    def choose(
        self, cmap: ChannelMap, ranks: Mapping[str, GroupRank], dense: Dense, *, share: float
    ) -> Plan:
        """Returns the largest plan whose slimmed network stays within the target.

        Raises:
            PruningError: the target lies below the smallest network that floors, scope and
                exclusions allow, or above the dense one.
        """
        from prunebench.channels import Plan

        whole = self.dense_amount(dense)
        keep = self.keep if self.keep <= 1 else self.keep / whole
        if keep > 1:
            raise PruningError(
                f"budget.keep={self.keep:g} exceeds the {whole:,} {self.unit} of the dense network"
            )
        target = int(whole * step_keep(keep, share) + 1e-6)
        plans, kept = self._family(cmap, ranks, dense)
        found = largest_within(target, plans, lambda k: self.amount(cmap, Plan(kept(k))))
        if found < 0:
            least = self.amount(cmap, Plan(kept(0)))
            raise PruningError(
                f"budget.keep={self.keep:g} asks for at most {target:,} {self.unit}, and the least "
                f"that can be reached is {least:,} ({least / whole:.1%}) with budget.scope="
                f"{self.scope}, budget.exclude={self.exclude}, budget.floor={self.floor} and "
                f"budget.divisor={self.divisor}"
            )
        chosen = kept(found)
        return Plan({name: chosen[name] for name in ranks})

    def _family(
        self, cmap: ChannelMap, ranks: Mapping[str, GroupRank], dense: Dense
    ) -> tuple[int, Callable[[int], Kept]]:
        """Returns how many nested plans there are, and the k-th, smallest first."""
        if self.allocation == "global":
            order = global_order(ranks)
            return len(order) + 1, lambda k: leading(self, ranks, order, k)
        now = {group.name: group.size for group in self.select(cmap)}
        later = [name for name, size in now.items() if size == dense.sizes[name]]
        later = [name for name in later if name not in ranks]
        levels = keep_levels({name: dense.sizes[name] for name in [*ranks, *later]})

        def kept(k: int) -> Kept:
            wanted = {name: dense.sizes[name] * levels[k] for name in [*ranks, *later]}
            chosen = {
                name: best(rank.scores, kept_count(self, wanted[name], len(rank.scores)))
                for name, rank in ranks.items()
            }
            # no scores yet: which channels stay does not change the counts
            rest = {name: tuple(range(kept_count(self, wanted[name], now[name]))) for name in later}
            return {**chosen, **rest}

        return len(levels), kept
