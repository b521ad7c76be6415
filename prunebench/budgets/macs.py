"""Target MACs: the slimmed network may have at most a given number of MACs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.budgets.target import Target
from prunebench.contracts import Dense

if TYPE_CHECKING:
    from prunebench.channels import ChannelMap, Plan


@dataclass(frozen=True, kw_only=True)
class Macs(Target):
    """Keeps as many channels as a number of MACs of the whole network allows."""

    unit = "MACs"

    def amount(self, cmap: ChannelMap, plan: Plan) -> int:
        """Returns the MACs of the network slimmed by `plan`."""
        return cmap.macs(plan)

    def dense_amount(self, dense: Dense) -> int:
        """Returns the MACs of the unpruned network."""
        return dense.macs
