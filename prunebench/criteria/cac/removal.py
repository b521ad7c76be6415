"""Chooses the channels that go at a step, so that counts follow a cubic ramp to the limits."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor

from prunebench.channels import ChannelGroup, Plan
from prunebench.contracts import Assignment
from prunebench.criteria.cac.ramp import cubic, fewest, level
from prunebench.criteria.cac.settings import CacSettings
from prunebench.errors import PruningError


@dataclass(frozen=True)
class Estimates:
    """The estimates of all channels of all groups, side by side, on the CPU.

    Attributes:
        scores: [C]; the score that the network would lose without each channel.
        seen: [C]; (effective) number of samples behind each.
        errors: [C]; standard errors of the scores; None if not needed.
    """

    scores: Tensor
    seen: Tensor
    errors: Tensor | None = None


class Removal:
    """The ramp of one training; it has no state, so a resumed run restores none.

    Attributes:
        begin, end: first and last step of the ramp.
        floors: group name -> fewest channels.
        first: the amount of each limit in the whole network.
    """

    def __init__(self, settings: CacSettings, work: Assignment) -> None:
        """Computes floors, first amounts and the steps of the ramp."""
        self.settings, self.work = settings, work
        self.sizes = [group.size for group in work.groups]
        self.floors = {
            group.name: max(work.floors[group.name], min(2, group.size), _share(settings, group))
            for group in work.groups
        }
        self.first = [limit.amount(Plan({})) for limit in work.limits]
        total = work.epochs * work.steps
        self.begin, self.end = int(settings.start * total), max(int(settings.end * total), 1)

    def due(self, step: int) -> bool:
        """Whether channels may go after `step` steps."""
        turn = (step - self.begin) % self.settings.prune_every == 0
        return step >= self.begin and (turn or step >= self.end)

    def next_plan(self, step: int, plan: Plan, known: Estimates, threshold: float) -> Plan:
        """Returns what stays of `plan` to bring the counts to the ramp's level at `step`.

        Raises:
            PruningError: the ramp is over and a limit is not met.
        """
        free = (known.seen >= self.settings.n_min) & ~self.still_useful(plan, known, threshold)
        scores = torch.where(free, known.scores, torch.inf)
        final = step >= self.end
        progress = 1.0 if final else cubic(step, self.begin, self.end)
        levels = [
            level(first, limit.target, progress)
            for first, limit in zip(self.first, self.work.limits, strict=True)
        ]

        def reached(plan: Plan) -> bool:
            pairs = zip(self.work.limits, levels, strict=True)
            return all(limit.amount(plan) <= most for limit, most in pairs)

        most = max(1, int(self.settings.max_step * sum(self.sizes)))
        left, there = fewest(plan.kept, self.order(scores, plan), self.floors, reached, most=most)
        if final and not there:
            self._refuse(left, known, threshold)
        return left

    def still_useful(self, plan: Plan, known: Estimates, threshold: float) -> Tensor:
        """Returns which channels of `plan` evidently matter more than `threshold`, bool [C].

        No channel does if the settings ask for no evidence.
        """
        if known.errors is None or self.settings.evidence is None:
            return torch.zeros_like(known.seen, dtype=torch.bool)
        lowest = known.scores - self.settings.evidence * known.errors
        return (lowest > threshold) & self._left(plan)

    def raised(self, threshold: float, before: Plan, after: Plan, scores: Tensor) -> float:
        """Returns the highest of `threshold` and the scores [C] of channels that went."""
        for group, part in zip(self.work.groups, torch.split(scores, self.sizes), strict=True):
            gone = set(before.kept[group.name]) - set(after.kept[group.name])
            threshold = max([threshold, *part[sorted(gone)].tolist()])
        return threshold

    def met(self, plan: Plan) -> bool:
        """Whether `plan` meets all limits."""
        return all(limit.amount(plan) <= limit.target for limit in self.work.limits)

    def order(self, scores: Tensor, plan: Plan) -> list[tuple[str, int]]:
        """Returns the channels of `plan` with a finite score [C], first to go first."""
        found = []
        for group, part in zip(self.work.groups, torch.split(scores, self.sizes), strict=True):
            cost = self.cost(group.name, plan) if self.settings.per_cost else 1.0
            for channel in plan.kept[group.name]:
                score = float(part[channel])
                # of equal scores the costlier channel goes first, be they harmful or useful
                worth = score / cost if score > 0 else score * cost
                if score != torch.inf:
                    found.append((worth, group.name, channel))
        found.sort(key=lambda row: row[0])
        return [(name, channel) for _, name, channel in found]

    def cost(self, name: str, plan: Plan) -> float:
        """Returns the fraction of the limits' first amounts that one channel of `name` saves."""
        kept = plan.kept[name]
        if len(kept) < 2:
            return 1.0
        less = Plan({**plan.kept, name: kept[1:]})
        saved = [
            (limit.amount(plan) - limit.amount(less)) / first
            for first, limit in zip(self.first, self.work.limits, strict=True)
        ]
        return max(sum(saved), 1e-12)

    def row(self, plan: Plan) -> dict[str, Any]:
        """Returns the amounts and channel counts of `plan`, for the log."""
        counts = {limit.unit: limit.amount(plan) for limit in self.work.limits}
        return {**counts, "kept": {name: len(kept) for name, kept in plan.kept.items()}}

    def _left(self, plan: Plan) -> Tensor:
        """Returns which channels of all groups `plan` keeps, bool [C]."""
        parts = []
        for group in self.work.groups:
            part = torch.zeros(group.size, dtype=torch.bool)
            part[list(plan.kept[group.name])] = True
            parts.append(part)
        return torch.cat(parts)

    def _refuse(self, plan: Plan, known: Estimates, threshold: float) -> None:
        """Raises PruningError, saying why the limits are not met."""
        found = ", ".join(
            f"{limit.amount(plan):,} {limit.unit} (limit {limit.target:,})"
            for limit in self.work.limits
        )
        held = int(self.still_useful(plan, known, threshold).sum())
        unseen = int((known.seen.lt(self.settings.n_min) & self._left(plan)).sum())
        evidence = (
            f", {held} held back by criterion.evidence={self.settings.evidence:g}" if held else ""
        )
        raise PruningError(
            f"criterion=cac ends at {found}, with {unseen} channels seen fewer than "
            f"criterion.n_min={self.settings.n_min} times{evidence}, floors of budget.floor and "
            f"criterion.least={self.settings.least}, and criterion.max_step="
            f"{self.settings.max_step:g} of all channels every criterion.prune_every="
            f"{self.settings.prune_every} steps; loosen one of them, train longer, or ask for less"
        )


def _share(settings: CacSettings, group: ChannelGroup) -> int:
    """Returns the fewest channels of `group` that ``criterion.least`` leaves."""
    return min(group.size, ceil(settings.least * group.size - 1e-9))
