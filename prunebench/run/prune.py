"""From the dense network to the slim one: all steps of the schedule, each on what the last left."""

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
    """What pruning came to.

    Attributes:
        network: slim, with all repairs and short trainings, or trained from fresh weights; to be
            fine-tuned.
        bare: the same cuts and nothing else. Where the option repairs, neither the repairs nor
            the short trainings that build on them; where it does not, the network right after the
            last cut.
        repaired: right after the last cut and its repair.
        plans: one per step, each in the numbering of the network it was applied to.
        steps: their records.
        unscored: group that stayed whole for want of a score -> why.
        wiring: index of each `GatherChannels` of the network that the first plan was applied to.
        latency_target: what came of a budget in milliseconds.
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
    """Returns what the schedule's steps make of the `dense` network, which is left unchanged.

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
        cuts.append(take(context, step, network, cmap, decided, earlier))
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


def take(
    context: RunContext,
    step: Step,
    network: nn.Module,
    cmap: ChannelMap,
    decided: Decided | None,
    earlier: Mapping[str, Tensor],
) -> Cut:
    """Returns what `step` makes of `network`, computed now or before a kill.

    `network`, as pruned so far, is left unchanged. `decided` is there where a training has made the
    plan; `earlier` has the scores of what the step before left.
    """
    name = f"prune-{step.name}"
    counts = dense_counts(cmap)
    done = context.ledger.do(
        name, lambda _: pack(compute(context, step, network, counts, decided, earlier))
    )
    made = unpack(done, network, context.example)
    error, dtype = made.record.surgery_error, made.record.surgery_dtype
    context.log({"stage": name, "surgery_error": error})
    context.progress.note(f"{step.name}: mask and slim agree to {error:.1e} (relative, {dtype})")
    for told in remarks(made.record):
        context.progress.note(f"{step.name}: {told}")
    if thin := nearly_gone(made.record.kept, counts.sizes):
        context.progress.note(f"{step.name}: less than a tenth of the channels is left in {thin}")
    return made


def nearly_gone(kept: Mapping[str, int], dense: Mapping[str, int]) -> str:
    """Lists the groups that keep less than a tenth of their dense channels; empty if none does."""
    thin = [name for name, count in kept.items() if 10 * count < dense[name]]
    return ", ".join(f"{name} ({kept[name]} of {dense[name]})" for name in thin)


def compute(
    context: RunContext,
    step: Step,
    network: nn.Module,
    counts: Dense,
    decided: Decided | None,
    earlier: Mapping[str, Tensor],
) -> Cut:
    """Ranks, chooses, repairs, slims and verifies."""
    run, example = context.run, context.example
    sample = replace(context.sample(step), earlier=earlier)
    facts = evidence(network, trace(network, example), step, sample)
    if decided is None:
        return cut(facts, Method.of(run), step, counts, example=example)
    made = cut_as(decided.plan, facts, run.repair, step, example=example)
    return replace(made, record=replace(made.record, counts=decided.counts))


def train_between(context: RunContext, step: Step, network: nn.Module) -> nn.Module:
    """Returns `network` after the short training that follows `step`; itself if none does."""
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
    """Returns the structure that `plans` leave, with fresh weights trained as the baseline is."""
    dense = baseline.build(context.run, context.data, "redrawn weights").to(context.device)
    rewire(dense, wiring)
    network = slim_by(plans, dense.eval(), context.example)
    keep_variance(network, dense)
    context.head = None
    done = context.trained(network, context.run.recipe.baseline, "redrawn")
    network.load_state_dict(done.last)
    return network.eval()


def slim_by(plans: tuple[Plan, ...], network: nn.Module, example: Tensor) -> nn.Module:
    """Returns `network` slimmed by `plans` one after the other."""
    for plan in plans:
        network = slim(network, trace(network, example), plan).eval()
    return network


def pack(made: Cut) -> dict[str, Any]:
    """Returns a cut as plain values and tensors."""
    return {
        "plan": made.plan.to_json(),
        "network": made.network.state_dict(),
        "record": to_json(made.record),
        "scores": dict(made.scores),
    }


def unpack(done: Mapping[str, Any], before: nn.Module, example: Tensor) -> Cut:
    """Returns what `pack` packed of a cut in the network `before`."""
    plan = Plan.from_json(done["plan"])
    network = slim_by((plan,), before, example)
    add_position_biases_as_in(network, done["network"])
    network.load_state_dict(done["network"])
    return Cut(network, plan, from_json(StepRecord, done["record"], "step"), done["scores"])
