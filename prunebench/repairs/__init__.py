"""Repairs: each option says what is folded into the channels that stay."""

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
    """What softens the cut; the schema of ``conf/repair/*.yaml``."""

    #: whether the option leaves the pruned network as it is
    identity = False

    #: whether the training images hold as many of each class; a field where an option has it
    class_balanced = False

    @property
    def images_needed(self) -> int:
        """Number of training images the repair wants to see; 0 = none."""
        return 0

    def fold(self, evidence: Evidence, plan: Plan) -> nn.Module:
        """Returns the full-size network whose remaining channels make up for the cut ones.

        Called before surgery. The network of the evidence must be left unchanged.
        """
        return evidence.network

    def settle(self, slimmed: nn.Module, evidence: Evidence, plan: Plan) -> None:
        """Adjusts the slimmed network in place, after surgery and its verification."""
        return


def __getattr__(name: str) -> Any:
    """Imports an option's class when it is asked for by name alone."""
    from prunebench.options import option_class

    return option_class("repair", name)


def __dir__() -> list[str]:
    """Returns the names that there are, the options' classes with them."""
    from prunebench.options import option_classes

    return sorted({*globals(), *option_classes("repair")})
