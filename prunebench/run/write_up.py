"""The run as one record, at its end."""

from __future__ import annotations

from datetime import UTC, datetime

from torch import nn

from prunebench import measure, records
from prunebench.records.environment import environment
from prunebench.run.context import RunContext
from prunebench.run.prune import Pruned


def write_up(
    context: RunContext, dense: nn.Module, pruned: Pruned, measured: list[records.Measurement]
) -> records.Report:
    """Returns the run as one record."""
    run = context.run
    return records.Report(
        config=run.config,
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
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def layer_table(
    context: RunContext, dense: nn.Module, slimmed: nn.Module
) -> list[records.LayerRow]:
    """Returns every conv and linear layer before and after."""
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


def summary(report: records.Report) -> dict[str, float]:
    """Returns the figures a run ends with, for its tracker."""
    figures: dict[str, float] = {}
    for measured in report.measurements:
        figures[f"{measured.stage}/params"] = measured.params
        figures[f"{measured.stage}/macs"] = measured.macs
        if measured.test is not None:
            figures[f"{measured.stage}/test_top1"] = measured.test.top1
        for latency in measured.latency:
            figures[f"{measured.stage}/latency_ms_batch{latency.batch}"] = latency.median_ms
    return figures
