"""Turns the dense network into the slim one, by the steps of the schedule one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from torch import Tensor, nn

from prunebench import measure
from prunebench.channels import (
    ChannelMap,
    Plan,
    add_position_biases_as_in,
    rewire,
    slim,
    trace,
    wiring_of,
)
from prunebench.contracts import Dense
from prunebench.models.found import keep_variance
from prunebench.records import LatencyTarget, StepRecord, from_json, to_json
from prunebench.run import baseline
from prunebench.run.context import RunContext
from prunebench.run.in_training import Decided, prune_while_training
from prunebench.run.ready import ready
from prunebench.run.scored import left_whole, remarks
from prunebench.run.step import Cut, Method, cut, cut_as, dense_counts, evidence
from prunebench.run.timing import outcome
from prunebench.schedules import Step


@dataclass(frozen=True)
class Pruned:
    """Holds the result of all pruning steps.

    Attributes:
        network: the slim network to be fine-tuned: with all repairs and short trainings between
            steps, or with fresh weights, trained like a baseline.
        bare: the same cuts with neither repairs nor the short trainings that build on them. If the
            repair option does nothing, the network right after the last cut.
        repaired: the network right after the last cut and its repair.
        plans: one per step, each in the channel numbering of the network that it cut.
        steps: the record of each step.
        unscored: group that stays whole because it has no score -> why.
        wiring: name of each `GatherChannels` of the network that the first plan cut -> its index.
        latency_target: outcome of a budget in milliseconds; None for other budgets.
    """

    network: nn.Module
    bare: nn.Module
    repaired: nn.Module
    plans: tuple[Plan, ...]
    steps: tuple[StepRecord, ...]
    unscored: Mapping[str, str]
    wiring: Mapping[str, list[int]]
    latency_target: LatencyTarget | None = None

    @property
    def plan(self) -> Plan:
        """All cuts as one plan for the dense network."""
        return reduce(Plan.compose, self.plans, Plan({}))


def prune(context: RunContext, dense: nn.Module) -> Pruned:
    """Returns the result of the schedule's steps on the `dense` network, which stays unchanged.

    Raises:
        PruningError: criterion or budget cannot serve this network, or surgery went wrong.
    """
    note = context.progress.note
    run, dense, cmap, unscored = ready(context.run, dense, context.example, note)
    if unscored:
        note(left_whole(unscored))
    context = replace(context, run=run)
    start, decided = dense, None
    if run.schedule.trains:
        start, decided = prune_while_training(context, dense, cmap)
    network, cuts = start, list[Cut]()
    for step in run.schedule.steps([group.name for group in run.budget.select(cmap)]):
        earlier = cuts[-1].scores if cuts else {}
        cuts.append(cut_step(context, step, network, cmap, decided, earlier))
        network = train_between(context, step, cuts[-1].network)
    repaired = cuts[-1].network
    steps = tuple(made.record for made in cuts)
    if any(step.share for step in steps) and measure.params(repaired) == measure.params(dense):
        note("nothing was pruned: budget and criterion keep every channel")
    plans = tuple(made.plan for made in cuts)
    bare = repaired if run.repair.identity else slim_by(plans, start, context.example)
    wiring = wiring_of(dense)
    if run.schedule.redraws:
        network = redrawn(context, plans, wiring)
    pruned = Pruned(network, bare, repaired, plans, steps, unscored, wiring)
    target = outcome(run.budget, repaired, cmap, pruned.plan, context.example)
    if target is not None:
        note(f"{target}{target.advice and f'; {target.advice}'}")
    return replace(pruned, latency_target=target)


def cut_step(
    context: RunContext,
    step: Step,
    network: nn.Module,
    cmap: ChannelMap,
    decided: Decided | None,
    earlier: Mapping[str, Tensor],
) -> Cut:
    """Returns the cut that `step` makes in `network`, computed now or before a kill; reports it.

    `network`, as pruned so far, is left unchanged. `decided` is the plan of a training that pruned;
    with None the criterion decides. `earlier` has the scores of what the last step kept.
    """
    name = f"prune-{step.name}"
    counts = dense_counts(cmap)
    done = context.ledger.do(
        name, lambda _: pack(fresh_cut(context, step, network, counts, decided, earlier))
    )
    made = unpack(done, network, context.example)
    error, dtype = made.record.surgery_error, made.record.surgery_dtype
    context.log({"stage": name, "surgery_error": error})
    context.progress.note(f"{step.name}: mask and slim agree to {error:.1e} (relative, {dtype})")
    for remark in remarks(made.record):
        context.progress.note(f"{step.name}: {remark}")
    if thin := nearly_gone(made.record.kept, counts.sizes):
        context.progress.note(f"{step.name}: less than a tenth of the channels is left in {thin}")
    return made


def nearly_gone(kept: Mapping[str, int], dense: Mapping[str, int]) -> str:
    """Returns a list of the groups that keep under a tenth of their channels; "" if none does."""
    thin = [name for name, count in kept.items() if 10 * count < dense[name]]
    return ", ".join(f"{name} ({kept[name]} of {dense[name]})" for name in thin)


def fresh_cut(
    context: RunContext,
    step: Step,
    network: nn.Module,
    counts: Dense,
    decided: Decided | None,
    earlier: Mapping[str, Tensor],
) -> Cut:
    """Ranks, chooses, repairs, slims and verifies; a plan that is `decided` is only carried out."""
    run, example = context.run, context.example
    sample = replace(context.sample(step), earlier=earlier)
    facts = evidence(network, trace(network, example), step, sample)
    if decided is None:
        return cut(facts, Method.of(run), step, counts, example=example)
    made = cut_as(decided.plan, facts, run.repair, step, example=example)
    return replace(made, record=replace(made.record, counts=decided.counts))


def train_between(context: RunContext, step: Step, network: nn.Module) -> nn.Module:
    """Returns `network` after the short training that follows `step`; itself if there is none."""
    if not step.epochs:
        return network
    phase = replace(context.run.recipe.between, epochs=step.epochs)
    network = deepcopy(network)
    done = context.trained(network, phase, f"between-{step.name}")
    network.load_state_dict(done.last)
    return network.eval()


def redrawn(
    context: RunContext, plans: tuple[Plan, ...], wiring: Mapping[str, list[int]]
) -> nn.Module:
    """Returns the structure that `plans` leave, with fresh weights, trained like a baseline."""
    dense = baseline.build(context.run, context.data, "redrawn weights").to(context.device)
    rewire(dense, wiring)
    network = slim_by(plans, dense.eval(), context.example)
    keep_variance(network, dense)
    context.head = None
    done = context.trained(network, context.run.recipe.baseline, "redrawn")
    network.load_state_dict(done.last)
    return network.eval()


def slim_by(plans: tuple[Plan, ...], network: nn.Module, example: Tensor) -> nn.Module:
    """Returns `network` slimmed by each of `plans` in turn."""
    for plan in plans:
        network = slim(network, trace(network, example), plan).eval()
    return network


def pack(made: Cut) -> dict[str, Any]:
    """Returns a cut as plain values and tensors, for the ledger."""
    return {
        "plan": made.plan.to_json(),
        "network": made.network.state_dict(),
        "record": to_json(made.record),
        "scores": dict(made.scores),
    }


def unpack(done: Mapping[str, Any], before: nn.Module, example: Tensor) -> Cut:
    """Returns the cut that `pack` packed; `before` is the network that was cut."""
    plan = Plan.from_json(done["plan"])
    network = slim_by((plan,), before, example)
    add_position_biases_as_in(network, done["network"])
    network.load_state_dict(done["network"])
    return Cut(network, plan, from_json(StepRecord, done["record"], "step"), done["scores"])
