"""Leaves groups without a score out of the budget, and reports them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch import nn

from prunebench.budgets import Budget, by_reason
from prunebench.channels import ChannelMap, Plan
from prunebench.contracts import GroupRank
from prunebench.criteria import Criterion
from prunebench.errors import PruningError
from prunebench.records import StepRecord


def scored_only(
    criterion: Criterion, budget: Budget, network: nn.Module, cmap: ChannelMap
) -> tuple[Budget, dict[str, str]]:
    """Returns `budget` without the groups that `criterion` cannot score, and why it cannot.

    The remaining groups have to reach what the budget asks of the whole network.

    Raises:
        PruningError: the criterion scores no group.
    """
    groups = budget.select(cmap)
    unscored = criterion.unscored(network, cmap, groups)
    if len(unscored) == len(groups):
        raise PruningError(
            f"criterion={type(criterion).__name__.lower()} can score no group of this network "
            f"({by_reason(unscored)}); choose another criterion"
        )
    return replace(budget, exclude=[*budget.exclude, *unscored]), unscored


def left_whole(unscored: Mapping[str, str]) -> str:
    """Returns a line on the groups that have no score, with the reason for the first one."""
    [(name, reason), *others] = unscored.items()
    more = f" and {len(others)} more; the report has all" if others else ""
    return f"left whole, without a score: {name} ({reason}){more}"


def alive_among_cut(ranks: Mapping[str, GroupRank], plan: Plan) -> tuple[int, int] | None:
    """Returns how many channels `plan` cuts that the criterion calls alive, and how many in all.

    Only groups count in which the criterion tells living channels from dead ones; None if there are
    none.
    """
    known = {name: rank for name, rank in ranks.items() if rank.alive is not None}
    cut = {
        name: {*range(len(rank.scores))} - {*plan.kept.get(name, range(len(rank.scores)))}
        for name, rank in known.items()
    }
    alive = sum(len(gone & {*(known[name].alive or ())}) for name, gone in cut.items())
    return (alive, sum(map(len, cut.values()))) if known else None


def remarks(record: StepRecord) -> Iterator[str]:
    """Yields lines on the settings that the budget found and the number of living channels cut."""
    if record.settings_found is not None:
        found = [f"criterion.{name}={value:g}" for name, value in record.settings_found.items()]
        yield f"the mildest decision that reaches the budget: {', '.join(found)}"
    if record.removed_alive:
        yield f"{record.removed_alive:,} of {record.removed:,} removed channels were alive"
