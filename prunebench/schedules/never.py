"""No pruning: the dense network is trained on as long as a pruned one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prunebench.schedules import Schedule, Step


@dataclass(frozen=True, kw_only=True)
class Never(Schedule):
    """Goes none of the way to the budget, which has to be one that can be gone part of the way."""

    repeats = True

    def steps(self, groups: Sequence[str]) -> list[Step]:
        """Returns one step over all `groups` that cuts nothing."""
        return [Step(name="never", groups=tuple(groups), share=0.0, epochs=0)]
