"""What looks on at a training and prunes: the parts of criteria that need torch."""

from __future__ import annotations

from typing import Protocol

from prunebench.channels import Plan
from prunebench.training.stage import Observer


class PruningObserver(Observer, Protocol):
    """An observer of the training loop that ends with a plan."""

    def plan(self) -> Plan:
        """Returns what is left so far, in the numbering of the network that is trained."""
