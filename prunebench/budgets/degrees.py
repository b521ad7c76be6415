"""Finds the mildest of a criterion's own decisions that reaches a target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from prunebench.budgets.counts import at_least
from prunebench.budgets.search import largest_within

if TYPE_CHECKING:
    from prunebench.budgets import Budget
    from prunebench.channels import Plan
    from prunebench.contracts import Dense, GroupRank

#: number of steps of the bar between 0 and 1
BARS = 10_000


def mildest(
    budget: Budget,
    ranks: Mapping[str, GroupRank],
    dense: Dense,
    target: int,
    amount: Callable[[Plan], int],
) -> tuple[Plan, dict[str, float]]:
    """Returns the criterion's plan at the mildest settings that reach `target`, and these.

    The level (FOAD's t) is the lowest that reaches the target with the bar (FOAD's s) at 0. Then
    bisection raises the bar as far as the plan stays within the target, unless the bar changes
    nothing. If no level reaches the target, the plan is the smallest there is.

    Args:
        budget: gives floor and divisor, which add to each decision.
        ranks: group name -> rank, each with degrees.
        dense: the counts of the unpruned network.
        target: amount that may not be exceeded.
        amount: returns the amount (MACs, say) of a plan.
    """
    # all have degrees: `config` has checked the criterion
    degrees = {name: rank.degrees for name, rank in ranks.items() if rank.degrees is not None}

    def plan(level: int, bar: int) -> Plan:
        from prunebench.channels import Plan

        return Plan(
            {
                name: at_least(
                    budget, rank, degrees[name].decide(level, bar / BARS), dense.sizes[name]
                )
                for name, rank in ranks.items()
            }
        )

    most = max(each.most for each in degrees.values())
    if amount(plan(most, 0)) > target:
        level, bar = most, 0
    else:
        level = next(t for t in range(most + 1) if amount(plan(t, 0)) <= target)
        bar = largest_within(target, BARS + 1, lambda count: amount(plan(level, count)))
    if plan(level, BARS) == plan(level, 0):  # FOAD's older rule ignores the bar and accepts only 0
        bar = 0
    first, second = next(iter(degrees.values())).names
    return plan(level, bar), {first: level, second: bar / BARS}
