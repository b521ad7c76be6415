"""Writes the report of a finished run."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial

from torch import nn

from prunebench import measure, records
from prunebench.checkpoints.slimmed import SLIM
from prunebench.records.environment import environment
from prunebench.reports.plot.of_run import plots_of
from prunebench.run.context import RunContext
from prunebench.run.prune import Pruned
from prunebench.tracking import Outcome


def write_up(
    context: RunContext, dense: nn.Module, pruned: Pruned, measured: list[records.Measurement]
) -> records.Report:
    """Returns the report of the run, without what `runner.execute` adds."""
    run = context.run
    return records.Report(
        config=run.recorded,
        choices=run.choices,
        seed=run.settings.seed,
        digest=run.digest,
        environment=environment(context.device),
        seconds=context.ledger.seconds,
        plan={name: list(kept) for name, kept in pruned.plan.kept.items()},
        layers=layer_table(context, dense, pruned.network),
        steps=list(pruned.steps),
        measurements=measured,
        convention=measure.CONVENTION,
        note=context.data.note,
        contents=run.contents,
        unscored=dict(pruned.unscored),
        latency_target=pruned.latency_target,
        damaged=dict(context.data.damaged.found) or None,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def layer_table(
    context: RunContext, dense: nn.Module, slimmed: nn.Module
) -> list[records.LayerRow]:
    """Returns channels, params and MACs of every conv and linear layer before and after pruning."""
    after = {row.name: row for row in measure.layer_costs(slimmed, context.example)}
    return [
        records.LayerRow(
            name=row.name,
            channels_before=row.out_channels,
            channels_after=after[row.name].out_channels,
            params_before=row.params,
            params_after=after[row.name].params,
            macs_before=row.macs,
            macs_after=after[row.name].macs,
        )
        for row in measure.layer_costs(dense, context.example)
    ]


def outcome(context: RunContext, report: records.Report) -> Outcome:
    """Returns the final figures, tables and files that a tracker receives."""
    plan = json.dumps(report.plan, indent=2) + "\n"
    return Outcome(
        figures=figures(report),
        layers=[asdict(row) for row in report.layers],
        texts={"plan.json": plan, records.REPORT: records.to_json(report)},
        files=[context.folder / SLIM],
        plots=partial(plots_of, context.folder / records.REPORT, report),
    )


def figures(report: records.Report) -> dict[str, float]:
    """Returns accuracies, counts and latencies by stage, and the overall effect of pruning.

    ``drop_points`` is in percentage points, from the baseline to the end of fine-tuning.
    """
    found: dict[str, float] = {}
    for measured in report.measurements:
        found[f"{measured.stage}/params"] = measured.params
        found[f"{measured.stage}/macs"] = measured.macs
        if measured.test is not None:
            found[f"{measured.stage}/test_{measured.test.key}"] = measured.test.accuracy
        for latency in measured.latency:
            found[f"{measured.stage}/latency_ms_batch{latency.batch}"] = latency.median_ms
    before, after = report.at("baseline"), report.at("finetuned_last")
    if before is None or after is None:
        return found
    found["params_reduction_percent"] = 100 * (1 - after.params / before.params)
    found["macs_reduction_percent"] = 100 * (1 - after.macs / before.macs)
    if before.test is not None and after.test is not None:
        found[f"test_{after.test.key}"] = after.test.accuracy
        found["drop_points"] = before.test.accuracy - after.test.accuracy
    return found
