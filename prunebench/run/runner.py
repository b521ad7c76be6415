"""Runs the stages of a run in their order; no other module orders them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from prunebench import records
from prunebench.checkpoints import Checkpoint, slimmed
from prunebench.config import Run
from prunebench.config.fit import check_fit
from prunebench.config.launched import launched
from prunebench.config.secrets import redacted
from prunebench.interruption import answering, finish, listening
from prunebench.records.attempts import begin, changes
from prunebench.records.environment import environment
from prunebench.records.metrics import MetricsLog
from prunebench.records.unfinished import METRICS
from prunebench.reports.table import print_table
from prunebench.run import baseline, kept
from prunebench.run.context import FINETUNE, RunContext, pick_device
from prunebench.run.damage import watch
from prunebench.run.folder import RunFolder, claim, failure_recorded
from prunebench.run.prune import Pruned, prune
from prunebench.run.rehearsal import rehearse
from prunebench.run.sensitivity import sensitivity
from prunebench.run.trained import Trained
from prunebench.run.workers import follow, further_processes, leading
from prunebench.run.write_up import outcome, write_up
from prunebench.tracking import Subject
from prunebench.tracking.progress import Progress
from prunebench.training.recorder import recorder_of


@dataclass(frozen=True)
class Label:
    """Holds what a tracker calls a run: its title ("" = the run's name) and sweep ("" = none)."""

    title: str = ""
    sweep: str = ""


def carry_out(
    run: Run, fresh: Path, notes: Mapping[str, str], label: Label
) -> records.Report | None:
    """Carries out `run` in the folder `fresh`, or goes on with one that was interrupted.

    Args:
        run: the checked configuration.
        fresh: the folder of a new run.
        notes: file name -> text, left in the run's folder.
        label: what a tracker calls the run.

    Returns:
        Its report; None of a dry run, and in every process but number 0.

    Raises:
        PrunebenchError: a mistake of the user's that only shows while running; it is recorded in
            ``failure.json``.
    """
    if run.settings.threads is not None:
        torch.set_num_threads(run.settings.threads)
    place = launched()
    if place is not None and place.rank:
        if not run.settings.dry_run:
            follow(run, place)
        return None
    if run.settings.dry_run:
        from prunebench.run.dry_run import dry_run

        dry_run(run)
        return None
    progress = Progress()
    with listening(), leading(run, place), claim(run, fresh, notes, progress.note) as folder:
        if run.settings.resume and folder.fresh:
            progress.note(f"nothing to resume in {run.settings.outputs}: a new run starts")
        if folder.finished is None:
            if not folder.fresh:
                progress.note(f"continuing the run in {folder.path}")
            with failure_recorded(run, folder, refusals=bool(label.sweep)), answering():
                report = execute(run, folder, progress, label)
                finish()  # from here on a signal comes too late to interrupt the run
            records.finish(folder.path, report)
        else:
            text = folder.finished.read_text(encoding="utf-8")
            report = records.from_json(records.Report, text, str(folder.finished))
            progress.note("this run has finished before; nothing is left to resume")
        folder.ledger.clear()  # not before the report is on disk
        print_table([folder.path])
        progress.note(f"report: {folder.path / records.REPORT}")
        return report


def execute(run: Run, folder: RunFolder, progress: Progress, label: Label) -> records.Report:
    """Returns the report of the whole run: baseline, pruning, fine-tuning."""
    device = pick_device(run.settings.device)
    recorder_of(device, run.settings.compile)  # refuses run.compile before any work is done
    attempts = begin(folder.path, environment(device))
    if differing := changes(attempts):
        progress.note(f"the result may not be bit-identical: {'; '.join(differing)}")
    data = run.dataset.load()
    watch(data, folder, progress)
    for line in check_fit(run, data):
        progress.note(line)
    origin = run.model.origin()
    metrics = MetricsLog(folder.path / METRICS, fresh=folder.fresh)
    with (
        further_processes(run, device),
        run.tracker.start(subject(run, folder.path, label, progress)) as tracker,
    ):
        context = RunContext(
            run, folder.path, folder.ledger, data, device, metrics, tracker, progress
        )
        context.replay()
        dense = dense_network(context)
        measured = [context.measure("baseline", dense, partial(kept.measurement, context))]
        sensitivities = sensitivity(context, dense)
        pruned = prune(context, dense)
        measured.append(context.measure("pruned", pruned.bare))
        if not run.repair.identity:
            measured.append(context.measure("repaired", pruned.repaired))
        measured += finetune(context, pruned, measured[-1])
        report = replace(
            write_up(context, dense, pruned, measured),
            origin=origin,
            attempts=attempts,
            sensitivity=sensitivities,
            baseline=baseline.stored_as(run, dense, data),
        )
        tracker.conclude(outcome(context, report))
    return replace(report, untracked=redacted(tracker.lost, run.hidden) or None)


def subject(run: Run, folder: Path, label: Label, progress: Progress) -> Subject:
    """Returns the description of the run that its tracker shows."""
    return Subject(
        folder=folder,
        title=label.title or run.name,
        config=run.recorded,
        choices=run.choices,
        identity=run.digest[:16],
        sweep=label.sweep,
        note=progress.note,
    )


def dense_network(context: RunContext) -> nn.Module:
    """Returns the trained dense network, in eval mode on the run's device."""
    run, ledger, note = context.run, context.ledger, context.progress.note
    ledger.under_way = "baseline"
    network = baseline.build(run, context.data).to(context.device)

    def rehearsal() -> None:
        rehearse(run, context.data, network, context.example, note)

    def train(network: nn.Module, checkpoint: Checkpoint) -> Trained:
        return context.train(network, run.recipe.baseline, "baseline", checkpoint)

    weights = baseline.given(run, network, context.data) or baseline.obtain(
        run, network, ledger, rehearsal, train, note
    )
    note(f"baseline: {weights.origin}")
    context.head = weights.head
    if run.model.embeds and weights.head is None:
        note(
            f"baseline: it has no head for these {context.data.classes:,} identities; "
            "training starts with a new one"
        )
    for row in weights.epochs:  # another run may have trained and logged them
        context.log(row)
    return network.eval()


def finetune(
    context: RunContext, pruned: Pruned, before: records.Measurement
) -> list[records.Measurement]:
    """Fine-tunes and saves the slim network; measures its last and its best-validation weights.

    If no training follows the last cut, the measurement `before` is reused.
    """
    run, network, data = context.run, pruned.network, context.data
    done = context.trained(network, run.recipe.finetune, FINETUNE, run.schedule.tail())
    origin = slimmed.Provenance(
        model=run.config["model"],
        shape=data.shape,
        classes=data.classes,
        plans=pruned.plans,
        wiring=pruned.wiring,
        mean=data.mean,
        std=data.std,
    )
    network.load_state_dict(done.last)
    slimmed.save(context.folder / slimmed.SLIM, network.eval(), origin)
    if pruned.network is pruned.repaired and not run.recipe.finetune.epochs:
        return [context.measure_again("finetuned_last", before)]
    last = context.measure("finetuned_last", network)
    if done.best is None:  # no validation images, or no epochs
        return [last]
    network.load_state_dict(done.best)
    slimmed.save(context.folder / "slim_best_val.pt", network.eval(), origin)
    if done.best_is_last:
        return [last, context.measure_again("finetuned_best_val", last)]
    return [last, context.measure("finetuned_best_val", network)]
