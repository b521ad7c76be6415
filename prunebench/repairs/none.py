"""None: leaves the remaining channels as they are."""

from __future__ import annotations

from dataclasses import dataclass

from prunebench.repairs import Repair


@dataclass(frozen=True)
class NoRepair(Repair):
    """Leaves the pruned network as it is."""

    identity = True
