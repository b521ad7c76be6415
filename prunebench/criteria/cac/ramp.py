"""How far gradual pruning has to be at a step, and which channels go to get there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from prunebench.budgets.search import largest_within
from prunebench.channels import Plan


def cubic(step: float, start: float, end: float) -> float:
    """Returns how much of the way to go by `step`: 1 - (1 - x)^3 from `start` to `end`, in [0, 1].

    Zhu and Gupta, "To prune, or not to prune", 2017.
    """
    if step >= end:
        return 1.0
    return 1 - (1 - max(step - start, 0) / (end - start)) ** 3


def level(first: int, target: int, progress: float) -> float:
    """Returns the count to be down to after `progress` of the way from `first` to `target`."""
    return target + (first - target) * (1 - progress)


def fewest(
    kept: Mapping[str, Sequence[int]],
    order: Sequence[tuple[str, int]],
    floors: Mapping[str, int],
    reached: Callable[[Plan], bool],
    *,
    most: int | None = None,
) -> tuple[Plan, bool]:
    """Returns `kept` less the fewest channels of `order` that make `reached` hold; and if it does.

    Args:
        kept: group name -> channels.
        order: (group, channel), first to go first; where a group is down to its floor, its others
            are passed over.
        floors: group name -> fewest channels.
        reached: never turns False as more channels go.
        most: at most so many go; None for no limit.
    """
    left = {name: len(channels) for name, channels in kept.items()}
    going: list[tuple[str, int]] = []
    for name, channel in order:
        if left[name] > floors[name] and len(going) != most:
            left[name] -= 1
            going.append((name, channel))

    def without(count: int) -> Plan:
        gone: dict[str, set[int]] = {}
        for name, channel in going[:count]:
            gone.setdefault(name, set()).add(channel)
        return Plan({n: [c for c in cs if c not in gone.get(n, ())] for n, cs in kept.items()})

    # the number that stays of those that may go is largest where the number that goes is fewest
    count = largest_within(0, len(going) + 1, lambda stay: not reached(without(len(going) - stay)))
    return without(len(going) - max(count, 0)), count >= 0
