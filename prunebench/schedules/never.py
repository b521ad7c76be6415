"""No pruning: fine-tunes the dense network for as long as a pruned one, for comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prunebench.schedules import Schedule, Step


@dataclass(frozen=True, kw_only=True)
class Never(Schedule):
    """Cuts nothing: its one step has share 0, so the budget must be one that accepts shares."""

    repeats = True

    def steps(self, groups: Sequence[str]) -> list[Step]:
        """Returns one step over all `groups` that cuts nothing."""
        return [Step(name="never", groups=tuple(groups), share=0.0, epochs=0)]
