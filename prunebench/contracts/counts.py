"""The amounts that budgets count: those of the dense network, and limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunebench.channels import Plan


@dataclass(frozen=True)
class Dense:
    """The unpruned network's counts, to which every keep ratio refers.

    Attributes:
        sizes: group name -> number of classes.
        macs, params: MACs (one image) and parameters of the whole dense network.
    """

    sizes: Mapping[str, int]
    macs: int
    params: int


@dataclass(frozen=True)
class Limit:
    """An amount that the slimmed network must not exceed.

    Attributes:
        unit: the unit of the amount, for messages.
        target: the largest amount allowed.
        amount: returns the amount of the network slimmed by a plan.
    """

    unit: str
    target: int
    amount: Callable[[Plan], int]
