"""Implements ``run.dry_run=true``: does all but train, and prints what the run would prune."""

from __future__ import annotations

from dataclasses import replace

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
from prunebench.run.in_training import try_observer
from prunebench.run.ready import ready
from prunebench.run.scored import left_whole, remarks
from prunebench.run.step import Method, cut, dense_counts, draw_sample, evidence
from prunebench.run.timing import ceiling, outcome
from prunebench.tracking.progress import Progress


def dry_run(run: Run) -> None:
    """Loads, builds, traces, plans, slims and verifies, but trains nothing; prints the plan.

    Raises:
        PrunebenchError: whatever would stop the run itself before or while pruning.
    """
    device, note = pick_device(run.settings.device), Progress().note
    data = run.dataset.load()
    for line in check_fit(run, data):
        note(line)
    network = baseline.build(run, data).to(device).eval()
    at_hand = baseline.given(run, network, data) or baseline.from_store(run, network)
    origin = at_hand.origin if at_hand else "initial ones; a trained net's plan may differ"
    example = tracing_image(data.shape).to(device)
    run, network, cmap, unscored = ready(run, network, example, note)
    if unscored:
        note(left_whole(unscored))
    if run.schedule.trains:
        foresee(run, network, cmap, data)
        return
    counts, method = dense_counts(cmap), Method.of(run)
    sample = draw_sample(run, data, device, method.images_needed)
    whole = Plan({})
    error = 0.0
    for step in run.schedule.steps([group.name for group in run.budget.select(cmap)]):
        if step.new_images:
            fresh = draw_sample(run, data, device, method.images_needed, step)
            sample = replace(fresh, earlier=sample.earlier)
        facts = evidence(network, trace(network, example), step, sample)
        made = cut(facts, method, step, counts, example=example)
        network, sample = made.network, replace(sample, earlier=made.scores)
        whole = Plan.compose(whole, made.plan)
        error = max(error, made.record.surgery_error)
        for remark in remarks(made.record):
            note(f"{step.name}: {remark}")
    target = outcome(run.budget, network, cmap, whole, example)
    print_plan(cmap, whole, origin, error, sizes(data))
    if target is not None and isinstance(run.budget, Timed):
        say(str(target), ceiling(run.budget, cmap), target.advice)
    else:
        say(widths_of(cmap, whole))


def foresee(run: Run, network: nn.Module, cmap: ChannelMap, data: Data) -> None:
    """Prints the limits of a run that prunes during training; only the training makes its plan.

    Raises:
        PruningError: the criterion cannot serve this network or this training.
    """
    trained = try_observer(run, cmap, data, network)
    images = sizes(trained)
    if held := len(data.train) - len(trained.train):
        images += f"; {held:,} more are held for criterion.holdout"
    groups = run.budget.select(cmap)
    say(
        "dry run: nothing is trained",
        f"data: {images}",
        f"{len(groups)} groups with {sum(group.size for group in groups):,} channels are "
        f"pruned during {run.recipe.pruning.epochs} epochs; the training decides which channels",
    )
    for limit in run.budget.limits(cmap, dense_counts(cmap)):
        say(f"{limit.unit}: {limit.amount(Plan({})):,} -> at most {limit.target:,}")


def sizes(data: Data) -> str:
    """Returns a phrase with the number of training, validation and test images."""
    train, val, test = (f"{len(split):,}" for split in (data.train, data.val, data.test))
    return f"{train} training, {val} validation and {test} test images"


def print_plan(cmap: ChannelMap, plan: Plan, origin: str, error: float, images: str) -> None:
    """Prints the plan group by group, which layers cannot be pruned, and the totals."""
    table = Table("group", "channels", "kept", title="dry run: nothing is trained")
    for group in cmap.groups:
        kept = len(plan.kept.get(group.name, range(group.size)))
        table.add_row(group.name, str(group.size), str(kept))
    Console().print(table, markup=False)
    dense = dense_counts(cmap)
    macs, params = cmap.macs(plan), cmap.params(plan)
    say(
        *(f"not prunable: {name}: {reason}" for name, reason in cmap.frozen.items()),
        f"data: {images}",
        f"weights: {origin}",
        f"params: {dense.params:,} -> {params:,} ({params / dense.params - 1:+.1%})",
        f"MACs: {dense.macs:,} -> {macs:,} ({macs / dense.macs - 1:+.1%}); {CONVENTION}",
        f"surgery: masked and slimmed network agree to {error:.1e} (relative)",
    )


def widths_of(cmap: ChannelMap, plan: Plan) -> str:
    """Returns advice on widths that hardware often computes slowly; "" if the plan leaves none.

    It goes by the numbers alone: nothing has been timed.
    """
    sizes = {group.name: group.size for group in cmap.groups}
    cut = [len(kept) for name, kept in plan.kept.items() if len(kept) < sizes[name]]
    return advice(odd_widths(cut))


def say(*lines: str) -> None:
    """Prints the non-empty ones of `lines`."""
    for line in filter(None, lines):
        Console().print(line, markup=False, highlight=False, soft_wrap=True)
