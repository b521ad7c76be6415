"""Defines a fragment of a drawn network as lines of source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Block:
    """Lines that turn `x` [n, c, 8, 8] into `x` [n, channels, 8, 8].

    Attributes:
        init: lines of the constructor, for `self`.
        forward: lines of the forward.
        channels: of `x` afterwards.
        define: classes of its own.
        after: lines that run on the finished network `net`: hooks and replaced forwards.
    """

    init: str
    forward: str
    channels: int
    define: str = ""
    after: str = ""


#: (prefix of the names of its layers, channels of `x`, numbers to draw) -> lines
Fragment = Callable[[str, int, Random], Block]


def wider(c: int, r: Random) -> int:
    """Draws the number of channels of a layer that follows one with `c`."""
    return r.choice([w for w in (8, 12, 16) if w != c])
