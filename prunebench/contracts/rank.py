"""What a criterion says of the channels of a group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Degrees:
    """The decisions that a criterion would make for one group, from mild to strict.

    Attributes:
        names: of level and bar, as the criterion's options call them.
        most: level above which nothing changes.
        decide: takes a level from 0, where all stay, and a bar in [0, 1]; a higher level spares
            fewer classes, and a higher bar more, but for single steps. Returns those kept,
            ascending.
    """

    names: tuple[str, str]
    most: int
    decide: Callable[[int, float], tuple[int, ...]]


@dataclass(frozen=True)
class GroupRank:
    """How the classes of one group compare.

    Attributes:
        scores: float64 [group.size] on the CPU; higher = keep; finite.
        kept: the criterion's own decision, ascending class indices; None if it makes none.
        counts: what the criterion counted on the way, for the record.
        alive: the classes that it knows to matter, however low they score; None if it cannot tell.
        degrees: its decisions at other settings; None if it has no such family.
    """

    scores: Tensor
    kept: tuple[int, ...] | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    alive: tuple[int, ...] | None = None
    degrees: Degrees | None = None
