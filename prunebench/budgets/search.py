"""The largest of a nested family of plans that stays within a target.

A family is an order of channels, given by their groups' names: plan k keeps the first k.
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


def uniform_order(sizes: Mapping[str, int]) -> list[str]:
    """Returns the groups in the order in which they gain a channel as one keep ratio grows.

    Groups that gain one at the same ratio do so in forward order, so that a target between the
    two counts of many equal layers can be met closely.

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
        budget: for its floor and divisor, which add to what the order gives.
        order: group names.
        count: channels that stay.
        sizes: group name -> size now, which caps the count.
        dense: group name -> size in the dense network, which a floor may be a share of.
    """
    wanted = Counter(order[:count])
    return {
        name: kept_count(budget, wanted[name], size, dense[name]) for name, size in sizes.items()
    }
