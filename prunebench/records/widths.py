"""Widths that cost a slim network its speed-up: which ones, when, and in which words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

#: widths that are multiples of this suit the blocked layouts of fast engines; the others may not
BLOCK = 8
#: share of the counted speed-up below which widths are suspected
ENOUGH = 0.75
#: widths that are named
SHOWN = 3


def odd_widths(kept: Iterable[int]) -> list[int]:
    """Returns those of the `kept` counts of what was cut that are no multiples of `BLOCK`."""
    return sorted({count for count in kept if count % BLOCK})


def falls_short(counted: float, measured: float) -> bool:
    """Whether a network is much less faster than its MACs are fewer."""
    return measured < ENOUGH * counted


def advice(widths: Sequence[int], verb: str = "may cost") -> str:
    """Says what `widths` of `odd_widths` do, and what avoids it; "" if there are none.

    Args:
        widths: that are named, the first few of them.
        verb: ``cost`` where that is known.
    """
    if not widths:
        return ""
    some = ", ".join(map(str, widths[:SHOWN])) + (", ..." if len(widths) > SHOWN else "")
    return f"widths of {some} {verb} you the speed-up: budget.divisor={BLOCK}"
