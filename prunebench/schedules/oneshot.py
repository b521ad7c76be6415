"""One-shot pruning: cuts every group at once, then fine-tunes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prunebench.schedules import Schedule, Step


@dataclass(frozen=True, kw_only=True)
class OneShot(Schedule):
    """Prunes all groups in a single step."""

    def steps(self, groups: Sequence[str]) -> list[Step]:
        """Returns one step over all `groups`."""
        return [Step(name="oneshot", groups=tuple(groups), share=1.0, epochs=0)]
