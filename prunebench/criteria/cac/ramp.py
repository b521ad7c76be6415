"""The ramp of gradual pruning: the counts due at a step, and the channels that go for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from prunebench.budgets.search import largest_within
from prunebench.channels import Plan


def cubic(step: float, start: float, end: float) -> float:
    """Returns the part of the ramp done by `step`: 1 - (1 - x)^3, x from `start` to `end`.

    Zhu and Gupta, "To prune, or not to prune", 2017.
    """
    if step >= end:
        return 1.0
    return 1 - (1 - max(step - start, 0) / (end - start)) ** 3


def level(first: int, target: int, progress: float) -> float:
    """Returns the count that is due after part `progress` of the way from `first` to `target`."""
    return target + (first - target) * (1 - progress)


def fewest(
    kept: Mapping[str, Sequence[int]],
    order: Sequence[tuple[str, int]],
    floors: Mapping[str, int],
    reached: Callable[[Plan], bool],
    *,
    most: int | None = None,
) -> tuple[Plan, bool]:
    """Returns `kept` without the fewest channels of `order` that make `reached` true.

    Args:
        kept: group name -> channels.
        order: (group, channel), first to go first; once a group is at its floor, its further
            channels are skipped.
        floors: group name -> fewest channels.
        reached: whether a plan is small enough; must not turn False as more channels go.
        most: most channels to remove; None for no limit.

    Returns:
        The plan, and whether `reached` holds for it.
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

    # searches the largest number of removable channels that stay
    count = largest_within(0, len(going) + 1, lambda stay: not reached(without(len(going) - stay)))
    return without(len(going) - max(count, 0)), count >= 0
