"""What a budget measures a network by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunebench.channels import Plan


@dataclass(frozen=True)
class Dense:
    """The unpruned network's counts, the yardstick of every keep ratio.

    Attributes:
        sizes: group name -> number of classes.
        macs, params: of the whole dense network.
    """

    sizes: Mapping[str, int]
    macs: int
    params: int


@dataclass(frozen=True)
class Limit:
    """A count that the slimmed network may reach and not exceed.

    Attributes:
        unit: what is counted, for messages.
        target: the limit.
        amount: the count of the network slimmed by a plan.
    """

    unit: str
    target: int
    amount: Callable[[Plan], int]
