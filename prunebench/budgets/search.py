"""The largest of a nested family of plans that stays within a target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from prunebench.budgets.counts import best, kept_count

if TYPE_CHECKING:
    from prunebench.budgets import Budget
    from prunebench.criteria import GroupRank

Kept = dict[str, tuple[int, ...]]


def largest_within(target: int, plans: int, size_of: Callable[[int], int]) -> int:
    """Returns the largest k in [0, plans) with ``size_of(k) <= target``, or -1 if there is none.

    Args:
        target: may not be exceeded.
        plans: number of plans; each keeps what the one before keeps, and perhaps more.
        size_of: what plan k amounts to; never falls as k grows.
    """
    fits, exceeds = -1, plans
    while exceeds - fits > 1:
        middle = (fits + exceeds) // 2
        if size_of(middle) <= target:
            fits = middle
        else:
            exceeds = middle
    return fits


def keep_levels(sizes: Mapping[str, int]) -> list[float]:
    """Returns every uniform keep ratio at which some group of dense `sizes` gains a channel.

    Ascending from 0, where only floors are kept, to 1.
    """
    return sorted({count / size for size in sizes.values() for count in range(size + 1)})


def global_order(ranks: Mapping[str, GroupRank]) -> list[str]:
    """Returns the group of each channel, best-scored channel first, ties in forward order."""
    pairs = [(-score, name) for name, rank in ranks.items() for score in rank.scores.tolist()]
    pairs.sort(key=lambda pair: pair[0])
    return [name for _, name in pairs]


def leading(budget: Budget, ranks: Mapping[str, GroupRank], order: list[str], count: int) -> Kept:
    """Returns what each group keeps when the first `count` channels of `order` stay.

    Floors are filled and counts rounded up to the divisor with each group's best others.
    """
    found = dict.fromkeys(ranks, 0)
    for name in order[:count]:
        found[name] += 1
    return {
        name: best(rank.scores, kept_count(budget, found[name], len(rank.scores)))
        for name, rank in ranks.items()
    }
