"""Budgets: each option turns scores into a plan: how many channels go, and where.

`Budget` is the interface. `uniform.py` is the simplest option; `target.py` meets MACs, parameters
or a time, by a search (`search.py`) over nested plans.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from prunebench.errors import PruningError, require, require_choice
from prunebench.options.patterns import require_matches

if TYPE_CHECKING:
    from prunebench.channels import ChannelGroup, ChannelMap, Plan
    from prunebench.contracts import Dense, GroupRank, Limit


#: ``kept``: int(C * keep) channels stay; ``removed``: int(C * (1 - keep)) go
ROUNDINGS = ("kept", "removed")


def not_cut(cmap: ChannelMap) -> str:
    """Says which layers stay whole and why, the first few of each reason."""
    return by_reason(cmap.frozen) or "there is no convolution and no linear layer in its forward"


def by_reason(reasons: Mapping[str, str]) -> str:
    """Lists the layers of `reasons` (name -> why), the first few of each reason."""
    layers: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        layers.setdefault(reason, []).append(name or "the network itself")
    return "; ".join(
        f"{', '.join(names[:3])}{' and others' if len(names) > 3 else ''}: {reason}"
        for reason, names in layers.items()
    )


@dataclass(frozen=True)
class Budget(ABC):
    """How many channels go and where; the schema of ``conf/budget/*.yaml``.

    Attributes:
        scope: ``inner`` leaves groups on a residual stream whole, ``all`` prunes them, too.
        exclude: name patterns (``*`` matches anything) of groups to leave whole.
        floor: fewest channels a group may keep.
        divisor: kept counts are rounded up to a multiple of this where the group allows it.
    """

    scope: str = "inner"
    exclude: list[str] = field(default_factory=list)
    floor: int = 1
    divisor: int = 1

    #: class constants that config.load checks before any training
    needs_decision = False  # uses GroupRank.kept
    needs_comparable = False  # ranks channels of different groups against each other
    needs_degrees = False  # uses GroupRank.degrees
    limits_training = False  # `limits` says when pruning during training is done
    chooses_divisor = False  # divisor=0 lets the budget choose one
    #: least share of its dense channels that a group keeps; a setting of budgets where scores
    #: decide how many channels of a group go
    floor_share = 0.0
    #: how fractions of a channel are rounded, one of `ROUNDINGS`; a setting of fixed keep ratios
    rounding = "kept"

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require_choice("scope", self.scope, ("inner", "all"))
        require(self.floor >= 1, f"floor must be at least 1, got {self.floor}")
        least = 0 if self.chooses_divisor else 1
        require(self.divisor >= least, f"divisor must be at least {least}, got {self.divisor}")
        require_choice("rounding", self.rounding, ROUNDINGS)
        share = self.floor_share
        require(0 <= share <= 1, f"floor_share must lie in [0, 1], got {share}")

    def least(self, size: int) -> int:
        """Returns the fewest channels that a group with `size` dense ones may keep."""
        scored = self.needs_comparable or self.needs_decision or self.needs_degrees
        share = self.floor_share if scored else 0.0
        return min(max(self.floor, math.ceil(share * size - 1e-9)), size)

    def excludes(self, name: str) -> bool:
        """Whether the group `name` is to be left whole."""
        return any(fnmatchcase(name, pattern) for pattern in self.exclude)

    def select(self, cmap: ChannelMap) -> tuple[ChannelGroup, ...]:
        """Returns the groups this budget may prune.

        Raises:
            PruningError: there is none, or a pattern of `exclude` matches no group.
        """
        if not cmap.groups:
            raise PruningError(f"no channel of this network can be cut; {not_cut(cmap)}")
        names = [group.name for group in cmap.groups]
        require_matches("budget.exclude", self.exclude, names)
        chosen = tuple(
            group
            for group in cmap.groups
            if not (self.scope == "inner" and group.residual) and not self.excludes(group.name)
        )
        if not chosen:
            raise PruningError(self._nothing_left(cmap))
        return chosen

    def _nothing_left(self, cmap: ChannelMap) -> str:
        """Says why no group may be pruned, and what would help."""
        names = ", ".join(group.name for group in cmap.groups)
        if self.scope == "inner" and all(group.residual for group in cmap.groups):
            return (
                f"all groups ({names}) lie on residual streams, which budget.scope=inner leaves "
                'alone; use budget.scope=all (in Python, scope="all") to prune them too'
            )
        hint = ", or budget.scope=all" if self.scope == "inner" else ""
        return (
            f"no group is left to prune with budget.scope={self.scope} and "
            f"budget.exclude={self.exclude}; exclude less{hint}; groups: {names}"
        )

    @abstractmethod
    def choose(
        self, cmap: ChannelMap, ranks: Mapping[str, GroupRank], dense: Dense, *, share: float
    ) -> Plan:
        """Returns the plan for one step of pruning.

        Args:
            cmap: channel map of the network as pruned so far.
            ranks: group name -> rank of each group to prune now; all others stay whole.
            dense: the counts of the unpruned network, to which keep ratios refer.
            share: part of the way to the final budget that is done after this step, in [0, 1].

        Raises:
            PruningError: the budget cannot be met; the message says what can be.
        """

    def settings_found(
        self, cmap: ChannelMap, ranks: Mapping[str, GroupRank], dense: Dense, *, share: float
    ) -> dict[str, float] | None:
        """Returns the settings of the criterion that `choose` found for its plan, if it seeks any.

        The arguments are those of `choose`.
        """
        return None

    def limits(self, cmap: ChannelMap, dense: Dense) -> tuple[Limit, ...]:
        """Returns the limits that pruning during training must reach, under `limits_training`.

        Args:
            cmap: channel map of the network in training; plans are in its numbering.
            dense: the counts of that network.

        Raises:
            PruningError: a limit cannot be reached.
        """
        return ()

    def floors(self, cmap: ChannelMap) -> dict[str, int]:
        """Returns group name -> fewest channels, for the groups this budget may prune."""
        return {group.name: self.least(group.size) for group in self.select(cmap)}


def __getattr__(name: str) -> Any:
    """Imports the class of an option on first access, as in ``budgets.Uniform``."""
    from prunebench.options import option_class

    return option_class("budget", name)


def __dir__() -> list[str]:
    """Returns the names of the module, including the options' classes."""
    from prunebench.options import option_classes

    return sorted({*globals(), *option_classes("budget")})
