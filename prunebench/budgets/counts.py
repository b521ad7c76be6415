"""Turns keep ratios into numbers of channels, and numbers into the best-scored channels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from prunebench.errors import PruningError

if TYPE_CHECKING:
    from torch import Tensor

    from prunebench.budgets import Budget
    from prunebench.channels import ChannelMap, Plan
    from prunebench.contracts import Dense, GroupRank


def step_keep(keep: float, share: float) -> float:
    """Returns the keep ratio after a step that has gone `share` of the way from 1 to `keep`."""
    return 1 - share * (1 - keep)


def kept_count(budget: Budget, wanted: float, size: int, dense: int | None = None) -> int:
    """Returns how many of `size` channels stay when `wanted` should, which need not be whole.

    A fraction of a kept channel is cut off after adding 1e-9 (0.29 * 100 is 28.999999999999996), or
    that of a removed channel, as `Budget.rounding` says. Then the floor applies, then the divisor,
    which rounds up.

    Args:
        budget: gives rounding, floor and divisor.
        wanted: number of channels, such as dense size times keep ratio.
        size: size of the group now, which is never exceeded.
        dense: size of the group in the dense network, if it differs.
    """
    whole = int(wanted + 1e-9) if budget.rounding == "kept" else math.ceil(wanted - 1e-9)
    count = max(whole, budget.least(size if dense is None else dense))
    return min(-(-count // budget.divisor) * budget.divisor, size)


def best(scores: Tensor, count: int) -> tuple[int, ...]:
    """Returns the `count` highest-scored classes, ascending; ties go to the lower index."""
    import torch

    order = torch.argsort(scores, descending=True, stable=True)
    return tuple(order[:count].sort().values.tolist())


def at_least(
    budget: Budget, rank: GroupRank, decided: tuple[int, ...], dense: int
) -> tuple[int, ...]:
    """Returns the classes `decided`, filled up to floor and divisor by the best others.

    `dense` is the size of the group in the dense network.
    """
    import torch

    count = kept_count(budget, len(decided), len(rank.scores), dense)
    if count == len(decided):
        return decided
    # so that the decided ones always come first
    scores = rank.scores.clone()
    scores[list(decided)] = torch.inf
    return best(scores, count)


def channels(sizes: Mapping[str, int], plan: Plan) -> int:
    """Returns how many channels the groups of `sizes` (name -> size now) keep under `plan`."""
    return sum(len(plan.kept.get(name, range(size))) for name, size in sizes.items())


def require_effect(
    budget: Budget, cmap: ChannelMap, dense: Dense, keep: Mapping[str, float]
) -> None:
    """Raises for keep ratios that remove nothing from the dense network, though one is below 1.

    Raises:
        PruningError: no group loses a channel.
    """
    sizes = {group.name: dense.sizes[group.name] for group in budget.select(cmap)}
    if all(keep[name] == 1 for name in sizes):
        return
    if all(kept_count(budget, size * keep[name], size) == size for name, size in sizes.items()):
        raise PruningError(
            f"budget.keep={min(keep[name] for name in sizes):g} removes none of "
            f"{sum(sizes.values())} channels; the largest group has {max(sizes.values())} "
            f"(budget.floor={budget.floor}, budget.divisor={budget.divisor}); lower budget.keep"
        )
