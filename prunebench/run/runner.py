"""The straight line of a run; the only place that orders its stages."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn

from prunebench import measure, records
from prunebench.channels import Plan, add_position_biases_as_in, slim, trace
from prunebench.checkpoints import Checkpoint
from prunebench.checkpoints import slimmed as lineage
from prunebench.config import Run
from prunebench.models.found import Found
from prunebench.records.identity import as_origin
from prunebench.records.metrics import MetricsLog
from prunebench.reports.table import show
from prunebench.reproducibility import environment
from prunebench.run import baseline
from prunebench.run.context import Job, pick_device
from prunebench.run.folder import claim, failure_recorded
from prunebench.run.in_training import prune_while_training
from prunebench.run.ledger import Stages
from prunebench.run.step import Method, cut, cut_as, dense_counts, draw_sample, evidence
from prunebench.run.workers import further_processes
from prunebench.schedules import Step
from prunebench.tracking.progress import Progress


@dataclass
class Pruned:
    """A network on its way from dense to slim.

    Attributes:
        network: as pruned and trained so far.
        cut: right after the last cut, without its repair and before any training.
        repaired: the same with its repair.
        plans: one per step, each in the numbering of the network it was applied to.
        steps: their records.
    """

    network: nn.Module
    cut: nn.Module
    repaired: nn.Module
    plans: list[Plan]
    steps: list[records.StepRecord]


def carry_out(run: Run, fresh: Path) -> None:
    """Carries out `run` in the folder `fresh`, or goes on with it where it was killed.

    Raises:
        PrunebenchError: a mistake of the user's that only shows while running; it is on record
            in ``failure.json``.
    """
    if run.settings.threads is not None:
        torch.set_num_threads(run.settings.threads)
    if run.settings.dry_run:
        from prunebench.run.dry_run import rehearse

        rehearse(run)
        return
    with claim(run, fresh) as attempt:
        progress = Progress()
        if attempt.finished is None:
            begun: list[str] = []
            with failure_recorded(run, attempt.folder, begun):
                report = execute(run, attempt.folder, progress, begun)
            records.finish(attempt.folder, report)
            Stages(attempt.folder, every_seconds=0).clear()  # only now is it not needed to resume
        else:
            progress.note("this run has finished before; nothing is left to resume")
        show([attempt.folder])
        progress.note(f"report: {attempt.folder / records.REPORT}")


def execute(run: Run, folder: Path, progress: Progress, begun: list[str]) -> records.Report:
    """Returns the report of the whole run: baseline, prune, fine-tune."""
    device = pick_device(run.settings.device)
    data = run.dataset.load()
    origin = as_origin(run.model.found()) if isinstance(run.model, Found) else None
    stages = Stages(folder, every_seconds=run.settings.checkpoint_seconds)
    metrics = MetricsLog(folder / "metrics.jsonl", fresh=not stages.started)
    with (
        further_processes(run, device),
        run.tracker.start(folder, run.name, run.config, run.digest[:16]) as tracker,
    ):
        job = Job(run, folder, data, device, stages, metrics, tracker, progress, begun)
        dense = dense_network(job)
        measured = [job.measure("baseline", dense)]
        pruned = prune(job, dense)
        measured.append(job.measure("pruned", pruned.cut))
        if not run.repair.identity:
            measured.append(job.measure("repaired", pruned.repaired))
        measured += finetune(job, pruned)
        report = replace(write_up(job, dense, pruned, measured), origin=origin)
        tracker.summary(summary(report))
    return report


def dense_network(job: Job) -> nn.Module:
    """Returns the trained dense network, in eval mode on the job's device."""
    job.begun.append("baseline")
    network = baseline.build(job.run, job.data).to(job.device)

    def train(network: nn.Module, checkpoint: Checkpoint) -> dict[str, Any]:
        return job.train(network, job.run.recipe.baseline, "baseline", checkpoint)

    origin = baseline.obtain(job.run, network, job.stages, train, job.progress.note)
    job.progress.note(f"baseline: {origin}")
    return network.eval()


def prune(job: Job, dense: nn.Module) -> Pruned:
    """Returns the network after all steps of the schedule, each on what the last one left."""
    run = job.run
    cmap = trace(dense, job.example)
    counts = dense_counts(cmap)
    names = [group.name for group in run.budget.select(cmap)]
    method = Method(run.criterion, run.budget, run.repair)
    state = Pruned(dense, dense, dense, [], [])
    decided: Plan | None = None
    if run.schedule.trains:
        state.network, decided = prune_while_training(job, dense, cmap)

    def compute(step: Step, _: Checkpoint) -> dict[str, Any]:
        start = perf_counter()
        sample = draw_sample(run, job.data, job.device, method.images_needed)
        if decided is None:
            made = cut(state.network, method, step, counts, sample=sample, example=job.example)
        else:
            facts = evidence(state.network, step, sample, job.example)
            made = cut_as(decided, facts, run.repair, example=job.example, criterion_seconds=0.0)
        record = records.StepRecord(
            name=step.name,
            groups=list(step.groups),
            share=step.share,
            kept={name: len(kept) for name, kept in made.plan.kept.items()},
            criterion_seconds=made.criterion_seconds,
            seconds=perf_counter() - start,
            surgery_error=made.error,
            unprunable=dict(cmap.frozen),
            counts={name: counted for name, counted in made.counts.items() if counted},
        )
        return {
            "plan": made.plan.to_json(),
            "network": made.network.state_dict(),
            "unrepaired": made.unrepaired.state_dict(),
            "record": records.to_json(record),
        }

    for step in run.schedule.steps(names):
        done = job.stage(f"prune-{step.name}", partial(compute, step))
        advance(job, state, step, done)
    return state


def advance(job: Job, state: Pruned, step: Step, done: dict[str, Any]) -> None:
    """Moves `state` on by a finished step, and by the short fine-tuning after it."""
    plan = Plan.from_json(done["plan"])
    state.network = slim(state.network, trace(state.network, job.example), plan).eval()
    state.network.load_state_dict(done["unrepaired"])
    state.cut = deepcopy(state.network)
    add_position_biases_as_in(state.network, done["network"])
    state.network.load_state_dict(done["network"])
    state.repaired = deepcopy(state.network)
    state.plans.append(plan)
    state.steps.append(records.from_json(records.StepRecord, done["record"], step.name))
    error = state.steps[-1].surgery_error
    job.log({"stage": f"prune-{step.name}", "surgery_error": error})
    job.progress.note(f"{step.name}: mask and slim agree to {error:.1e} (relative)")
    if step.epochs:
        phase = replace(job.run.recipe.between, epochs=step.epochs)
        name = f"between-{step.name}"
        trained = job.stage(name, lambda at: job.train(state.network, phase, name, at))
        state.network.load_state_dict(trained["network"])
        state.network.eval()


def finetune(job: Job, pruned: Pruned) -> list[records.Measurement]:
    """Fine-tunes the slim network, saves it, and measures its last and its best-val weights."""
    phase = job.run.recipe.finetune
    done = job.stage("finetune", lambda at: job.train(pruned.network, phase, "finetune", at))
    origin = lineage.Lineage(
        model=job.run.config["model"],
        shape=job.data.shape,
        classes=job.data.classes,
        plans=tuple(pruned.plans),
        mean=job.data.mean,
        std=job.data.std,
    )
    pruned.network.load_state_dict(done["network"])
    lineage.save(job.folder / "slim.pt", pruned.network.eval(), origin)
    last = job.measure("finetuned_last", pruned.network)
    if done["best"] is None:  # no validation images, or no epochs
        return [last]
    pruned.network.load_state_dict(done["best"])
    lineage.save(job.folder / "slim_best_val.pt", pruned.network.eval(), origin)
    if done["best_is_last"]:
        return [last, replace(last, stage="finetuned_best_val")]
    return [last, job.measure("finetuned_best_val", pruned.network)]


def write_up(
    job: Job, dense: nn.Module, pruned: Pruned, measured: list[records.Measurement]
) -> records.Report:
    """Returns the run as one record."""
    run = job.run
    whole = Plan({})
    for plan in pruned.plans:
        whole = Plan.compose(whole, plan)
    return records.Report(
        config=run.config,
        choices=run.choices,
        seed=run.settings.seed,
        digest=run.digest,
        environment=environment(job.device),
        seconds=job.seconds,
        plan={name: list(kept) for name, kept in whole.kept.items()},
        layers=layer_table(job, dense, pruned.network),
        steps=pruned.steps,
        measurements=measured,
        convention=measure.CONVENTION,
        note=job.data.note,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def layer_table(job: Job, dense: nn.Module, slimmed: nn.Module) -> list[records.LayerRow]:
    """Returns every conv and linear layer before and after."""
    after = {row.name: row for row in measure.layer_costs(slimmed, job.example)}
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
        for row in measure.layer_costs(dense, job.example)
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
