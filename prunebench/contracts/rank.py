"""The rank of a group's channels, as a criterion returns it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Degrees:
    """The decisions of a criterion for one group at all its settings, from mild to strict.

    Attributes:
        names: names of level and bar among the criterion's settings, such as FOAD's t and s.
        most: level above which nothing changes.
        decide: takes a level (0 keeps all) and a bar in [0, 1], returns the kept classes,
            ascending. A higher level keeps fewer and a higher bar keeps more, with exceptions.
    """

    names: tuple[str, str]
    most: int
    decide: Callable[[int, float], tuple[int, ...]]


@dataclass(frozen=True)
class GroupRank:
    """The scores of a group's classes, and what else a criterion knows of them.

    Attributes:
        scores: float64 [group.size] on the CPU, finite; higher = keep.
        kept: the criterion's own decision, kept classes ascending; None if it makes none.
        counts: counts that the report records.
        alive: classes known to matter, however low they score; None if it cannot tell.
        degrees: the decisions at other settings; None if there are none.
    """

    scores: Tensor
    kept: tuple[int, ...] | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    alive: tuple[int, ...] | None = None
    degrees: Degrees | None = None
