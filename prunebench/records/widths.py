"""Finds channel counts that cost a slim network its speed-up, and words the advice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

#: fast engines process channels in blocks of this size; other widths may waste part of a block
BLOCK = 8
#: widths are suspected if the measured speed-up is below this share of the one MACs suggest
ENOUGH = 0.75
#: number of widths that the advice names
SHOWN = 3


def odd_widths(kept: Iterable[int]) -> list[int]:
    """Returns the distinct values of `kept`, channel counts, that are no multiples of `BLOCK`."""
    return sorted({count for count in kept if count % BLOCK})


def falls_short(counted: float, measured: float) -> bool:
    """Returns whether a speed-up `measured` is far below the reduction of MACs, `counted`."""
    return measured < ENOUGH * counted


def advice(widths: Sequence[int], verb: str = "may cost") -> str:
    """Returns a line on the effect of `widths` and how to avoid it; "" if there are none.

    Args:
        widths: of which the first few are named.
        verb: ``cost`` if the effect has been measured.
    """
    if not widths:
        return ""
    some = ", ".join(map(str, widths[:SHOWN])) + (", ..." if len(widths) > SHOWN else "")
    return f"widths of {some} {verb} you the speed-up: budget.divisor={BLOCK}"
