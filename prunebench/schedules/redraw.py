"""One-shot pruning that discards the weights, to see what the slim structure alone is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prunebench.schedules import Schedule, Step


@dataclass(frozen=True, kw_only=True)
class Redraw(Schedule):
    """Prunes all groups in a single step, then trains the slim network from fresh weights."""

    redraws = True

    def steps(self, groups: Sequence[str]) -> list[Step]:
        """Returns one step over all `groups`."""
        return [Step(name="redraw", groups=tuple(groups), share=1.0, epochs=0)]
