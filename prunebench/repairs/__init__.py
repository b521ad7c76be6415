"""Repairs: each option adjusts the remaining channels to make up for the cut ones.

`Repair` is the interface, with one hook before surgery and one after it; `none.py` uses neither.
"""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from prunebench.channels import Plan
    from prunebench.contracts import Evidence


@dataclass(frozen=True)
class Repair(ABC):  # noqa: B024 - a repair may use either hook, or none
    """How the remaining network is repaired; the schema of ``conf/repair/*.yaml``."""

    #: whether the option leaves the pruned network as it is
    identity = False

    #: whether its training images hold equally many of each class; an option may make it a field
    class_balanced = False

    @property
    def images_needed(self) -> int:
        """Number of training images that the repair needs; 0 = none."""
        return 0

    def fold(self, evidence: Evidence, plan: Plan) -> nn.Module:
        """Returns the full-size network whose remaining channels make up for the cut ones.

        Called before surgery. It must leave the network of the evidence unchanged.
        """
        return evidence.network

    def settle(self, slimmed: nn.Module, evidence: Evidence, plan: Plan) -> None:
        """Adjusts the slimmed network, in place, after surgery and its verification."""
        return


def __getattr__(name: str) -> Any:
    """Imports the class of an option on first access, as in ``repairs.LeastSquares``."""
    from prunebench.options import option_class

    return option_class("repair", name)


def __dir__() -> list[str]:
    """Returns the names of the module, including the options' classes."""
    from prunebench.options import option_classes

    return sorted({*globals(), *option_classes("repair")})
