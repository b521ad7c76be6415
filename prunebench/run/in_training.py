"""The training in whose course a criterion prunes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from torch import nn

from prunebench.channels import ChannelMap, Plan
from prunebench.checkpoints import Checkpoint
from prunebench.config import Run
from prunebench.contracts import Assignment, PruningObserver
from prunebench.run import baseline
from prunebench.run.context import RunContext
from prunebench.run.step import dense_counts
from prunebench.schedules import TrainingSchedule


def prune_while_training(
    context: RunContext, dense: nn.Module, cmap: ChannelMap
) -> tuple[nn.Module, Plan]:
    """Returns the full-size network after ``recipe.pruning``, in eval mode, and what stays of it.

    Args:
        context: with a schedule that trains.
        dense: the trained baseline; left unchanged.
        cmap: its channel map.

    Raises:
        PruningError: the criterion cannot serve this network or this training.
    """
    run = context.run
    assert isinstance(run.schedule, TrainingSchedule)
    if run.schedule.start == "scratch":
        network = baseline.build(run, context.data).to(context.device)
    else:
        network = deepcopy(dense)
    observer = observer_of(run, cmap, len(context.data.train), context.log)

    def compute(checkpoint: Checkpoint) -> dict[str, Any]:
        done = context.train(network, run.recipe.pruning, "pruning", checkpoint, observer)
        return {**done.pack(), "plan": observer.plan().to_json()}

    done = context.ledger.do("pruning", compute)
    network.load_state_dict(done["network"])
    context.head = done.get("head")
    plan = Plan.from_json(done["plan"])
    tell(context, cmap, plan)
    return network.eval(), plan


def tell(context: RunContext, cmap: ChannelMap, plan: Plan) -> None:
    """Logs where pruning has come to, and tells the user of a budget that is not met."""
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
    run: Run, cmap: ChannelMap, images: int, log: Callable[[Mapping[str, Any]], None]
) -> PruningObserver:
    """Returns what watches the training: the criterion, or the schedule that asks it in between.

    Args:
        run: with a schedule that trains.
        cmap: channel map of the network to be trained.
        images: per epoch.
        log: receives a row whenever channels go.

    Raises:
        PruningError: the criterion cannot serve this network or this training.
    """
    dense = dense_counts(cmap)
    work = Assignment(
        cmap=cmap,
        groups=run.budget.select(cmap),
        limits=run.budget.limits(cmap, dense),
        floors=run.budget.floors(cmap),
        seed=run.settings.seed,
        epochs=run.recipe.pruning.epochs,
        steps=-(-images // run.recipe.pruning.batch_size),
        images=images,
        log=log,
    )
    assert isinstance(run.schedule, TrainingSchedule)
    return run.schedule.observer(run.criterion, run.budget, dense, work)
