"""The mildest of a criterion's own decisions that reaches a target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from prunebench.budgets.counts import at_least
from prunebench.budgets.search import largest_within

if TYPE_CHECKING:
    from prunebench.budgets import Budget
    from prunebench.channels import Plan
    from prunebench.contracts import Dense, GroupRank

#: steps of the bar between 0 and 1
BARS = 10_000


def mildest(
    budget: Budget,
    ranks: Mapping[str, GroupRank],
    dense: Dense,
    target: int,
    amount: Callable[[Plan], int],
) -> tuple[Plan, dict[str, float]]:
    """Returns the criterion's plan at the lowest level that reaches `target`, and its settings.

    The level is the lowest that can reach it at all, with the bar at 0; then the bar is raised as
    far as bisection finds it to stay within the target, or left where it is if it changes nothing.
    Where no level reaches it, the plan is the smallest that there is.

    Args:
        budget: for its floor and divisor, which add to each decision.
        ranks: by group name, each with its degrees.
        dense: sizes of the unpruned network.
        target: may not be exceeded.
        amount: what a plan amounts to.
    """
    # all have some: `config` has seen to that
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
    if plan(level, BARS) == plan(level, 0):  # FOAD's older rule has no bar, and takes none but 0
        bar = 0
    first, second = next(iter(degrees.values())).names
    return plan(level, bar), {first: level, second: bar / BARS}
