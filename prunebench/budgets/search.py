"""Finds the largest of a nested family of plans that stays within a target.

A family is given by an order in which channels are kept, a list of group names, one per channel:
plan k keeps the first k. Which channels of a group these are, its scores say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from prunebench.budgets.counts import kept_count

if TYPE_CHECKING:
    from prunebench.budgets import Budget
    from prunebench.contracts import GroupRank


def largest_within(target: int, plans: int, size_of: Callable[[int], int]) -> int:
    """Returns the largest k in [0, plans) with ``size_of(k) <= target``, or -1 if there is none.

    Args:
        target: amount that may not be exceeded.
        plans: number of plans; each keeps what the one before keeps, and perhaps more.
        size_of: returns the amount of plan k; never falls as k grows.
    """
    fits, exceeds = -1, plans
    while exceeds - fits > 1:
        middle = (fits + exceeds) // 2
        if size_of(middle) <= target:
            fits = middle
        else:
            exceeds = middle
    return fits


def uniform_order(sizes: Mapping[str, int]) -> list[str]:
    """Returns the order in which groups gain channels as one keep ratio of all grows.

    Groups that gain one at the same ratio follow each other in forward order, so that a target can
    be met closely even where many layers are equal.

    Args:
        sizes: group name -> dense size, in forward order.
    """
    gains = [
        (Fraction(count, size), position, name)
        for position, (name, size) in enumerate(sizes.items())
        for count in range(1, size + 1)
    ]
    return [name for _, _, name in sorted(gains)]


def global_order(ranks: Mapping[str, GroupRank]) -> list[str]:
    """Returns the group of each channel, best-scored channel first, ties in forward order."""
    pairs = [(-score, name) for name, rank in ranks.items() for score in rank.scores.tolist()]
    pairs.sort(key=lambda pair: pair[0])
    return [name for _, name in pairs]


def leading(
    budget: Budget,
    order: Sequence[str],
    count: int,
    sizes: Mapping[str, int],
    dense: Mapping[str, int],
) -> dict[str, int]:
    """Returns how many channels each group keeps when the first `count` of `order` stay.

    Args:
        budget: gives floor and divisor, which add to what the order gives.
        order: a group name per channel.
        count: number of channels that stay.
        sizes: group name -> size now, which is never exceeded.
        dense: group name -> size in the dense network, of which a floor may be a share.
    """
    wanted = Counter(order[:count])
    return {
        name: kept_count(budget, wanted[name], size, dense[name]) for name, size in sizes.items()
    }
