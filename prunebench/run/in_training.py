"""Runs the training during which a criterion prunes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn, optim

from prunebench.channels import ChannelMap, Plan
from prunebench.checkpoints import Checkpoint
from prunebench.config import Run
from prunebench.contracts import Assignment, PruningObserver, Sampled
from prunebench.datasets import Data, Images
from prunebench.datasets.holdout import hold_out
from prunebench.reproducibility import seed_for
from prunebench.run import baseline
from prunebench.run.context import PRUNING, RunContext
from prunebench.run.step import dense_counts
from prunebench.schedules import TrainingSchedule
from prunebench.training.batches import split_on
from prunebench.training.split import steps
from prunebench.training.stage import unlogged


@dataclass(frozen=True)
class Decided:
    """Holds what such a training has decided.

    Attributes:
        plan: the channels that stay.
        counts: group name -> what the criterion counted there, by name of the count.
    """

    plan: Plan
    counts: dict[str, dict[str, int]]


def prune_while_training(
    context: RunContext, dense: nn.Module, cmap: ChannelMap
) -> tuple[nn.Module, Decided]:
    """Trains with ``recipe.pruning``; returns the full-size network in eval mode and the decision.

    `dense`, the trained baseline that was traced as `cmap`, is left unchanged.

    Raises:
        PruningError: the criterion cannot serve this network or this training.
    """
    run = context.run
    assert isinstance(run.schedule, TrainingSchedule)
    if run.schedule.start == "scratch":
        network = baseline.build(run, context.data).to(context.device)
    else:
        network = deepcopy(dense)
    observer, data = observer_of(run, cmap, context.data, context.device, context.log)

    def compute(checkpoint: Checkpoint) -> dict[str, Any]:
        without_held = replace(context, data=data)
        done = without_held.train(network, run.recipe.pruning, PRUNING, checkpoint, observer)
        return {**done.pack(), "plan": observer.plan().to_json(), "counts": observer.counts()}

    done = context.ledger.do(PRUNING, compute)
    network.load_state_dict(done["network"])
    context.head = done.get("head")
    plan = Plan.from_json(done["plan"])
    report_limits(context, cmap, plan)
    return network.eval(), Decided(plan, done["counts"])


def try_observer(run: Run, cmap: ChannelMap, data: Data, network: nn.Module) -> Data:
    """Lets the observer start on a copy of `network`; returns the splits it would train on.

    Raises:
        PruningError: as `observer_of`, or when the training starts.
    """
    copied = deepcopy(network)
    observer, trained = observer_of(run, cmap, data, next(copied.parameters()).device)
    observer.start(copied, optim.SGD(copied.parameters(), lr=1.0))
    observer.finished()
    return trained


def report_limits(context: RunContext, cmap: ChannelMap, plan: Plan) -> None:
    """Logs what the finished plan costs, and warns the user of each limit that it exceeds."""
    row: dict[str, Any] = {"stage": "pruning-end"}
    for limit in context.run.budget.limits(cmap, dense_counts(cmap)):
        found = limit.amount(plan)
        row |= {limit.unit: found, f"{limit.unit} allowed": limit.target}
        if found > limit.target:
            context.progress.note(
                f"pruning ended with {found:,} {limit.unit} where the budget allows "
                f"{limit.target:,}: raise recipe.pruning.epochs, or let the criterion prune faster"
            )
    context.log(row)


def observer_of(
    run: Run,
    cmap: ChannelMap,
    data: Data,
    device: torch.device,
    log: Callable[[Mapping[str, Any]], None] = unlogged,
) -> tuple[PruningObserver, Data]:
    """Returns the observer that prunes during the training, and the splits to train on.

    Args:
        run: with a schedule that trains. The criterion watches the training itself, or the schedule
            asks it from time to time.
        cmap: channel map of the network to be trained.
        data: all images; those of ``criterion.holdout`` are taken from the training split.
        device: of the network.
        log: receives a row whenever channels are removed.

    Raises:
        PruningError: the criterion cannot serve this network or this training.
        DataError: there are too few images to hold any out.
    """
    dense = dense_counts(cmap)
    seed = seed_for(run.settings.seed, "selection")
    trained, held = hold_out(data, run.criterion.holdout, seed % 2**32)

    def drawn(images: Images | None, count: int) -> tuple[Sampled, torch.Tensor] | None:
        return split_on(device, data, images).sample(count, seed=seed) if images and count else None

    sample = drawn(trained.train, run.criterion.images_needed)
    assignment = Assignment(
        cmap=cmap,
        groups=run.budget.select(cmap),
        limits=run.budget.limits(cmap, dense),
        floors=run.budget.floors(cmap),
        seed=run.settings.seed,
        epochs=run.recipe.pruning.epochs,
        steps=steps(len(trained.train), run.recipe.pruning.batch_size),
        images=len(trained.train),
        log=log,
        shown=None if sample is None else sample[0].augmented(seed),
        held=drawn(held, 0 if held is None else len(held)),
    )
    assert isinstance(run.schedule, TrainingSchedule)
    return run.schedule.observer(run.criterion, run.budget, dense, assignment), trained
