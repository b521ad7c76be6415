"""Measures the accuracy after pruning one group alone, group by group, without training.

It uses validation images, so that choices made from the result do not use the test set.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from torch import nn

from prunebench import measure
from prunebench.budgets.counts import best, kept_count
from prunebench.channels import Plan, trace
from prunebench.criteria.ranked import ranked
from prunebench.records import SensitivityPoint
from prunebench.run.context import RunContext
from prunebench.run.scored import scored_only
from prunebench.run.step import cut_as, evidence
from prunebench.schedules import Step


def sensitivity(context: RunContext, dense: nn.Module) -> list[SensitivityPoint] | None:
    """Returns a point for each group and share of ``run.sensitivity``; None if that is null."""
    if context.run.settings.sensitivity is None:
        return None
    done = context.ledger.do("sensitivity", lambda _: {"points": _points(context, dense)})
    return [SensitivityPoint(**values) for values in json.loads(done["points"])]


def _points(context: RunContext, dense: nn.Module) -> str:
    """Computes all points and returns them as JSON."""
    run, example = context.run, context.example
    cmap = trace(dense, example)
    budget, _ = scored_only(run.criterion, run.budget, dense, cmap)
    names = tuple(group.name for group in budget.select(cmap))
    step = Step(name="sensitivity", groups=names, share=1.0, epochs=0)
    facts = evidence(dense, cmap, step, context.sample(step))
    ranks = ranked(run.criterion, facts)
    points: list[dict[str, Any]] = []
    for name in names:
        size = len(ranks[name].scores)
        for share in sorted(run.settings.sensitivity or (), reverse=True):
            kept = kept_count(budget, size * share, size)
            plan = Plan({name: best(ranks[name].scores, kept)})
            network = cut_as(plan, facts, run.repair, step, example=example).network
            score = context.validation(network)
            assert score is not None  # a configuration without validation images was refused
            point = SensitivityPoint(
                group=name,
                share=share,
                channels=size,
                kept=kept,
                macs=measure.macs(network, example),
                correct=score.correct,
                seen=score.seen,
            )
            points.append(asdict(point))
        context.progress.note(f"sensitivity: {name}")
    return json.dumps(points)
