"""Budgets that limit an amount (MACs, parameters, time) of the whole slimmed network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prunebench.budgets import Budget, not_cut
from prunebench.budgets.counts import best, step_keep
from prunebench.budgets.degrees import mildest
from prunebench.budgets.search import global_order, largest_within, leading, uniform_order
from prunebench.contracts import Dense, Limit
from prunebench.errors import PruningError, require, require_choice

if TYPE_CHECKING:
    from prunebench.channels import ChannelMap, Plan
    from prunebench.contracts import GroupRank

ALLOCATIONS = ("uniform", "global")


@dataclass(frozen=True, kw_only=True)
class Target(Budget):
    """Keeps as many channels as a target allows, found by bisection.

    With ``uniform`` allocation, groups that are not ranked in this step but still have their dense
    width count as cut by the same ratio, since a layer-by-layer schedule will come to them. Later
    steps can do what an earlier one assumes, or better, so the last step ends within the target.

    Attributes:
        keep: up to 1 the fraction of the dense network's count, above 1 the count itself.
        allocation: ``uniform`` gives every group one keep ratio, to within one channel; ``global``
            keeps the best-scored channels, in whatever group; ``decision`` takes the criterion's
            own decision at the mildest settings that reach the target (see `mildest`).
        floor_share: least share of its dense channels that a group keeps under ``global`` and
            ``decision``, in [0, 1]; without it scores may leave a layer a single channel.
    """

    keep: float
    allocation: str = "uniform"
    floor_share: float = 0.0

    #: the unit of the amount, for messages
    unit: ClassVar[str]

    limits_training = True

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        super().__post_init__()
        require(self.keep > 0, f"keep must be positive, got {self.keep}")
        require_choice("allocation", self.allocation, (*ALLOCATIONS, "decision"))

    @property
    def needs_degrees(self) -> bool:  # type: ignore[override]
        """Whether settings of the criterion are searched."""
        return self.allocation == "decision"

    @property
    def needs_comparable(self) -> bool:  # type: ignore[override]
        """Whether channels of different groups are ranked against each other."""
        return self.allocation == "global"

    @abstractmethod
    def amount(self, cmap: ChannelMap, plan: Plan) -> int:
        """Returns the amount of the network slimmed by `plan`."""

    @abstractmethod
    def dense_amount(self, dense: Dense) -> int:
        """Returns the amount of the unpruned network."""

    def choose(
        self, cmap: ChannelMap, ranks: Mapping[str, GroupRank], dense: Dense, *, share: float
    ) -> Plan:
        """Returns the largest plan whose slimmed network stays within the target.

        Raises:
            PruningError: the target lies below the smallest network that floors, scope and
                exclusions allow, or above the dense one.
        """
        from prunebench.channels import Plan

        target = self._goal(dense, share)
        if self.needs_degrees:
            return self._decided(cmap, ranks, dense, target)[0]
        order, sizes = self._family(cmap, ranks, dense)

        def kept(count: int) -> dict[str, tuple[int, ...]]:
            return {
                # groups of later steps have no scores yet, and only their widths matter
                name: best(ranks[name].scores, n) if name in ranks else tuple(range(n))
                for name, n in leading(self, order, count, sizes, dense.sizes).items()
            }

        def amount(count: int) -> int:
            return self.amount(cmap, Plan(kept(count)))

        found = largest_within(target, len(order) + 1, amount)
        if found < 0:
            raise self._out_of_reach(target, amount(0), cmap, dense)
        return Plan({name: stays for name, stays in kept(found).items() if name in ranks})

    def settings_found(
        self, cmap: ChannelMap, ranks: Mapping[str, GroupRank], dense: Dense, *, share: float
    ) -> dict[str, float] | None:
        """Returns the criterion's settings behind what `choose` returns; None if it seeks none."""
        if not self.needs_degrees:
            return None
        return self._decided(cmap, ranks, dense, self._goal(dense, share))[1]

    def _decided(
        self, cmap: ChannelMap, ranks: Mapping[str, GroupRank], dense: Dense, target: int
    ) -> tuple[Plan, dict[str, float]]:
        """Returns the criterion's mildest decision that reaches `target`, and its settings."""

        def amount(plan: Plan) -> int:
            return self.amount(cmap, plan)

        plan, settings = mildest(self, ranks, dense, target, amount)
        if amount(plan) > target:
            raise self._out_of_reach(target, amount(plan), cmap, dense)
        return plan, settings

    def _out_of_reach(
        self, target: int, least: int, cmap: ChannelMap, dense: Dense
    ) -> PruningError:
        """Returns the error that names `least`, the smallest amount that can be reached."""
        share = least / self.dense_amount(dense)
        return PruningError(
            f"budget.keep={self.keep:g} asks for at most {target:,} {self.unit}, and the least "
            f"that can be reached is {least:,} ({share:.1%}) with budget.scope="
            f"{self.scope}, budget.exclude={self.exclude}, budget.floor={self.floor}, "
            f"budget.floor_share={self.floor_share:g} and budget.divisor={self.divisor}; "
            f"what cannot be cut: {not_cut(cmap)}"
        )

    def limits(self, cmap: ChannelMap, dense: Dense) -> tuple[Limit, ...]:
        """Returns the target as a limit.

        Raises:
            PruningError: the target lies above the dense network's amount.
        """
        return (Limit(self.unit, self._goal(dense, 1.0), lambda plan: self.amount(cmap, plan)),)

    def _goal(self, dense: Dense, share: float) -> int:
        """Returns the amount to reach in a step that goes `share` of the way."""
        whole = self.dense_amount(dense)
        keep = self.keep if self.keep <= 1 else self.keep / whole
        if keep > 1:
            raise PruningError(
                f"budget.keep={self.keep:g} exceeds the {whole:,} {self.unit} of the dense network"
            )
        return int(whole * step_keep(keep, share) + 1e-6)

    def _family(
        self, cmap: ChannelMap, ranks: Mapping[str, GroupRank], dense: Dense
    ) -> tuple[list[str], dict[str, int]]:
        """Returns the order in which channels are kept, and the present sizes of its groups."""
        ranked = {name: len(rank.scores) for name, rank in ranks.items()}
        if self.allocation == "global":
            return global_order(ranks), ranked
        sizes = {
            group.name: group.size
            for group in self.select(cmap)
            if group.name in ranks or group.size == dense.sizes[group.name]
        }
        return uniform_order({name: dense.sizes[name] for name in sizes}), sizes
