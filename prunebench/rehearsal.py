"""``run.dry_run=true``: everything but the training, to see what a run would do."""

from __future__ import annotations

import torch
from rich.console import Console
from rich.table import Table

from prunebench import baseline, lineage
from prunebench.channels import ChannelMap, Plan, trace
from prunebench.config import Run
from prunebench.job import pick_device
from prunebench.measure import CONVENTION
from prunebench.pruning import Method, cut, dense_counts, draw_sample


def rehearse(run: Run) -> None:
    """Loads, builds, traces, plans, slims and verifies; prints the plan's size; trains nothing.

    Raises:
        PrunebenchError: whatever would stop the run itself before or while pruning.
    """
    device = pick_device(run.settings.device)
    data = run.dataset.load()
    network = baseline.build(run, data).to(device).eval()
    origin = baseline.load_at_hand(run, network) or "initial ones; a trained net's plan may differ"
    example = lineage.example_of(data.shape).to(device)
    cmap = trace(network, example)
    counts = dense_counts(cmap)
    method = Method(run.criterion, run.budget, run.repair)
    sample = draw_sample(run, data, device, method.images_needed)
    whole = Plan({})
    error = 0.0
    for step in run.schedule.steps([group.name for group in run.budget.select(cmap)]):
        made = cut(network, method, step, counts, sample=sample, example=example)
        network = made.network
        whole = Plan.compose(whole, made.plan)
        error = max(error, made.error)
    show(cmap, whole, origin, error, sizes(data.train.labels, data.val.labels, data.test.labels))


def sizes(*labels: torch.Tensor) -> str:
    """Returns how many images train, validate and test."""
    train, val, test = (f"{len(split):,}" for split in labels)
    return f"{train} training, {val} validation and {test} test images"


def show(cmap: ChannelMap, plan: Plan, origin: str, error: float, images: str) -> None:
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
        f"params: {dense.params:,} -> {params:,} (-{1 - params / dense.params:.1%})",
        f"MACs: {dense.macs:,} -> {macs:,} (-{1 - macs / dense.macs:.1%}); {CONVENTION}",
        f"surgery: masked and slimmed network agree to {error:.1e} (relative)",
    )
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
