"""Decides about a layer's search once it has enough draws: prune, narrow, or give up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from prunebench.channels import Plan
from prunebench.contracts import Assignment, Limit
from prunebench.criteria.aofp.search import Search, greedy, mean_damage, predicted, ridge_damage
from prunebench.criteria.aofp.settings import AofpSettings
from prunebench.errors import PruningError
from prunebench.training import distributed


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The outcome of a half; a row of the log.

    Attributes:
        searched: number of channels in the search set.
        granularity: number of them that a draw dropped.
        damage: the damage that decided.
        width: number of channels left.
        confirmed: whether the draws were of exactly the channels about to go.
        passed: whether the damage was small enough.
        frozen: whether the layer is no longer searched.
        least_draws: draws (or batches) behind the channel that was dropped the fewest times.
        seconds: spent scoring for this half by this process; on a GPU only the time to launch it,
            and only at steps that are not replayed.
    """

    searched: int
    granularity: int
    damage: float
    width: int
    confirmed: bool
    passed: bool
    frozen: bool
    least_draws: int
    seconds: float


def wanted(settings: AofpSettings, search: Search) -> int:
    """Returns the number of draws (or batches) after which to decide."""
    if search.trying is not None:
        return settings.confirm
    if settings.estimator == "gram":
        return settings.gram_batches
    return settings.draws_per_half


def decide(settings: AofpSettings, search: Search, *, floor: int) -> Decision:
    """Ends a half of `search`, in place; all processes must call it, and decide alike.

    `search` must have as many draws as `wanted` says; at least `floor` channels stay.
    """
    searched, granularity = len(search.space), search.granularity
    confirming = search.trying is not None
    masks = distributed.rows_of_all(search.masks[: search.draws])
    least_draws, seconds = _least_draws(search, masks), search.seconds
    chosen, worst = _choose(settings, search, masks)
    room = search.width - floor
    passed = settings.harmless(worst) and len(chosen) > 0
    if passed and room > 0 and not confirming and settings.confirm:
        search.confirm(chosen[:room])
    elif passed and room > 0:
        search.remove(chosen[:room])
    elif room > 0 and len(chosen) > 1:
        if settings.estimator == "gram":  # no draws narrow it: confirm the better half instead
            search.confirm(chosen[: len(chosen) // 2])
        else:
            search.narrow(chosen)
    else:
        search.fails += 1
        search.restart()
    spent = settings.on_fail == "freeze" and search.fails >= settings.freeze_after
    search.frozen = spent or search.width <= floor
    return Decision(
        searched=searched,
        granularity=granularity,
        damage=worst,
        width=search.width,
        confirmed=confirming,
        passed=passed,
        frozen=search.frozen,
        least_draws=least_draws,
        seconds=seconds,
    )


def _least_draws(search: Search, masks: Tensor) -> int:
    """Returns the number of draws behind the channel that was dropped the fewest times.

    `masks` says what each draw of all processes dropped, bool [draws, C].
    """
    if search.trying is not None or search.gram is not None:
        return search.draws * distributed.size()
    return int(masks.sum(0)[search.space].min())


def _choose(settings: AofpSettings, search: Search, masks: Tensor) -> tuple[Tensor, float]:
    """Returns the candidates to prune, least harmful first, and the damage that decides."""
    damage = distributed.rows_of_all(search.damages[: search.draws]).cpu()
    if search.trying is not None:
        return search.trying, float(damage.mean())
    if search.gram is not None:
        joint = distributed.total(search.gram) / (search.draws * distributed.size())
        most = len(search.space) - 1
        return greedy(joint, search.space, max(1, most), settings.harmless)
    if settings.estimator == "ridge":
        slopes = ridge_damage(masks, damage, strength=settings.ridge)
        order = slopes[search.space].argsort(stable=True)
        chosen = search.space[order[: search.granularity]]
        return chosen, predicted(masks, damage, slopes, chosen)
    means = mean_damage(masks, damage)[search.space]
    order = means.argsort(stable=True)[: search.granularity]
    return search.space[order], float(means[order].max())


def met(limits: Sequence[Limit], plan: Plan) -> bool:
    """Whether `plan` meets every limit; never without limits."""
    return bool(limits) and all(limit.amount(plan) <= limit.target for limit in limits)


def require_reachable(work: Assignment, scored: Sequence[str]) -> None:
    """Raises for limits below what the floors of the scored groups allow.

    Raises:
        PruningError: a limit cannot be reached.
    """
    least = Plan({name: range(work.floors[name]) for name in scored})
    for limit in work.limits:
        found = limit.amount(least)
        if found > limit.target:
            raise PruningError(
                f"criterion=aofp cannot go below {found:,} {limit.unit} with the groups it scores, "
                f"and the budget asks for {limit.target:,}; raise the budget"
            )
