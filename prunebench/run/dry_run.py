"""``run.dry_run=true``: everything but the training, to see what a run would do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from prunebench.budgets.latency import Timed
from prunebench.channels import ChannelMap, Plan, trace
from prunebench.checkpoints.slimmed import tracing_image
from prunebench.config import Run
from prunebench.config.fit import check_fit
from prunebench.datasets import Data
from prunebench.measure import CONVENTION
from prunebench.records.widths import advice, odd_widths
from prunebench.run import baseline
from prunebench.run.context import pick_device
from prunebench.run.in_training import observer_of
from prunebench.run.scored import left_whole, living, scored_only, searched
from prunebench.run.step import Method, cut, dense_counts, draw_sample
from prunebench.run.timing import LATENCY, ceiling, outcome, timed
from prunebench.tracking.progress import Progress


def dry_run(run: Run) -> None:
    """Loads, builds, traces, plans, slims and verifies; prints the plan's size; trains nothing.

    Raises:
        PrunebenchError: whatever would stop the run itself before or while pruning.
    """
    device = pick_device(run.settings.device)
    data = run.dataset.load()
    for line in check_fit(run, data):
        Progress().note(line)
    network = baseline.build(run, data).to(device).eval()
    at_hand = baseline.given(run, network, data) or baseline.from_store(run, network)
    origin = at_hand.origin if at_hand else "initial ones; a trained net's plan may differ"
    example = tracing_image(data.shape).to(device)
    if not run.schedule.trains:
        network = run.criterion.arranged(network, example)
    cmap = trace(network, example)
    budget, unscored = scored_only(run.criterion, run.budget, network, cmap)
    if unscored:
        Progress().note(left_whole(unscored))
    note, asked = Progress().note, budget
    budget = timed(asked, network, cmap, example, Path(run.settings.outputs) / LATENCY, note)
    run = replace(run, budget=budget)
    if run.schedule.trains:
        foresee(run, network, cmap, data, device)
        return
    counts = dense_counts(cmap)
    method = Method(run.criterion, run.budget, run.repair)
    sample = draw_sample(run, data, device, method.images_needed)
    whole = Plan({})
    error = 0.0
    for step in run.schedule.steps([group.name for group in run.budget.select(cmap)]):
        if step.new_images:
            fresh = draw_sample(run, data, device, method.images_needed, step)
            sample = replace(fresh, earlier=sample.earlier)
        made = cut(network, method, step, counts, sample=sample, example=example)
        network, sample = made.network, replace(sample, earlier=made.scores)
        whole = Plan.compose(whole, made.plan)
        error = max(error, made.record.surgery_error)
        for told in filter(None, (searched(made.record), living(made.record))):
            Progress().note(f"{step.name}: {told}")
    target = outcome(budget, asked, network, cmap, whole, example)
    images = sizes(data.train.labels, data.val.labels, data.test.labels)
    print_plan(cmap, whole, origin, error, images)
    if target is not None and isinstance(budget, Timed):
        say(str(target), ceiling(budget, cmap), target.advice)
    else:
        say(widths_of(cmap, whole))


def foresee(
    run: Run, network: nn.Module, cmap: ChannelMap, data: Data, device: torch.device
) -> None:
    """Prints what pruning during training will go for; the plan only comes with the training.

    Raises:
        PruningError: the criterion cannot serve this network or this training.
    """
    observer, trained = observer_of(run, cmap, data, device, lambda row: None)
    observer.start(network, torch.optim.SGD(network.parameters(), lr=1.0))
    observer.finished()
    console = Console()
    images = sizes(trained.train.labels, data.val.labels, data.test.labels)
    if held := len(data.train) - len(trained.train):
        images += f"; {held:,} more are held for criterion.holdout"
    groups = run.budget.select(cmap)
    console.print(
        f"dry run: nothing is trained\ndata: {images}\n{len(groups)} groups of together "
        f"{sum(group.size for group in groups):,} channels are pruned in the course of "
        f"{run.recipe.pruning.epochs} epochs; which, the training will show",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    for limit in run.budget.limits(cmap, dense_counts(cmap)):
        line = f"{limit.unit}: {limit.amount(Plan({})):,} -> {limit.target:,} at the most"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def sizes(*labels: torch.Tensor) -> str:
    """Returns how many images train, validate and test."""
    train, val, test = (f"{len(split):,}" for split in labels)
    return f"{train} training, {val} validation and {test} test images"


def print_plan(cmap: ChannelMap, plan: Plan, origin: str, error: float, images: str) -> None:
    """Prints the plan group by group, what cannot be pruned, and the totals."""
    console = Console()
    table = Table("group", "channels", "kept", title="dry run: nothing is trained")
    for group in cmap.groups:
        kept = len(plan.kept.get(group.name, range(group.size)))
        table.add_row(group.name, str(group.size), str(kept))
    console.print(table, markup=False)
    for name, reason in cmap.frozen.items():
        console.print(f"not prunable: {name}: {reason}", markup=False, highlight=False)
    dense = dense_counts(cmap)
    macs, params = cmap.macs(plan), cmap.params(plan)
    lines = (
        f"data: {images}",
        f"weights: {origin}",
        f"params: {dense.params:,} -> {params:,} ({params / dense.params - 1:+.1%})",
        f"MACs: {dense.macs:,} -> {macs:,} ({macs / dense.macs - 1:+.1%}); {CONVENTION}",
        f"surgery: masked and slimmed network agree to {error:.1e} (relative)",
    )
    say(*lines)


def widths_of(cmap: ChannelMap, plan: Plan) -> str:
    """Says which widths may cost the speed-up, which nobody has timed yet; "" if none may."""
    sizes = {group.name: group.size for group in cmap.groups}
    cut = [len(kept) for name, kept in plan.kept.items() if len(kept) < sizes[name]]
    return advice(odd_widths(cut))


def say(*lines: str) -> None:
    """Prints those of `lines` that say something."""
    for line in filter(None, lines):
        Console().print(line, markup=False, highlight=False, soft_wrap=True)
