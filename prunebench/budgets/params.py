"""Target parameters: the slimmed network may have at most a given number of parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.budgets.target import Target
from prunebench.contracts import Dense

if TYPE_CHECKING:
    from prunebench.channels import ChannelMap, Plan


@dataclass(frozen=True, kw_only=True)
class Params(Target):
    """Keeps as many channels as a number of parameters of the whole network allows."""

    unit = "parameters"

    def amount(self, cmap: ChannelMap, plan: Plan) -> int:
        """Returns the parameters of the network slimmed by `plan`."""
        return cmap.params(plan)

    def dense_amount(self, dense: Dense) -> int:
        """Returns the parameters of the unpruned network."""
        return dense.params
