"""Makes one cut: rank, choose, repair, slim, verify. Runs and the Python API both use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from math import isfinite
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from prunebench.budgets import Budget
from prunebench.channels import (
    ChannelMap,
    Example,
    Plan,
    agreement,
    require_as_planned,
    slim,
)
from prunebench.config import Run
from prunebench.contracts import Dense, Evidence, Task
from prunebench.criteria import Criterion
from prunebench.criteria.ranked import ranked
from prunebench.datasets import Data
from prunebench.errors import PruningError
from prunebench.records import StepRecord
from prunebench.repairs import Repair
from prunebench.reproducibility import cuda_math, seed_for
from prunebench.run.scored import alive_among_cut
from prunebench.schedules import Step
from prunebench.training.batches import split_on


@dataclass(frozen=True)
class Method:
    """Holds the options that one cut applies."""

    criterion: Criterion
    budget: Budget
    repair: Repair

    @classmethod
    def of(cls, run: Run) -> Method:
        """Returns the options of `run`."""
        return cls(run.criterion, run.budget, run.repair)

    @property
    def images_needed(self) -> int:
        """Number of training images that criterion and repair need."""
        return max(self.criterion.images_needed, self.repair.images_needed)

    @property
    def class_balanced(self) -> bool:
        """Whether these images should be evenly spread over the classes."""
        return self.criterion.class_balanced or self.repair.class_balanced


@dataclass(frozen=True)
class Sample:
    """Holds training images for criteria and repairs.

    Attributes:
        images: normalised, unaugmented, float32 [n, C, H, W], or whatever a user's network takes.
        labels: int64 [n], or whatever the user's loss takes.
        seed: for criteria that draw at random.
        task: how to run the network on images, and its loss.
        earlier: group name -> scores in the round before, see `Evidence`.
    """

    images: Any
    labels: Any
    seed: int
    task: Task = Task()
    earlier: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Cut:
    """Holds the result of one cut.

    Attributes:
        network: the slimmed and repaired network, in eval mode.
        plan: in the channel numbering of the network that was cut.
        record: of the step, for the report.
        scores: group name -> scores of the channels that stay; empty if the plan was made without
            scores.
    """

    network: nn.Module
    plan: Plan
    record: StepRecord
    scores: Mapping[str, Tensor] = field(default_factory=dict)


def draw_sample(
    run: Run, data: Data, device: torch.device, count: int, step: Step | None = None
) -> Sample:
    """Returns `count` images of the training split, drawn with the run's seed.

    A `step` that asks for new images gets its own; all other steps see the same ones.
    """
    own = (step.name,) if step is not None and step.new_images else ()
    seed = seed_for(run.settings.seed, "selection", *own)
    split = split_on(device, data, data.train)
    images, labels = split.sample(count, seed=seed, balanced=Method.of(run).class_balanced)
    return Sample(images, labels, seed)


def dense_counts(cmap: ChannelMap) -> Dense:
    """Returns channels per group, MACs and params of the network that was traced as `cmap`."""
    whole = Plan({})
    sizes = {group.name: group.size for group in cmap.groups}
    return Dense(sizes=sizes, macs=cmap.macs(whole), params=cmap.params(whole))


def cut(facts: Evidence, method: Method, step: Step, dense: Dense, *, example: Example) -> Cut:
    """Ranks and prunes the step's groups of a network, which is left unchanged.

    Args:
        facts: the network in eval mode, its channel map, and the images to rank and repair with.
        method: criterion, budget and repair.
        step: the groups to rank and prune now, and how far.
        dense: counts of the unpruned network.
        example: input [1, C, H, W], or several as for `trace`, to verify with.

    Raises:
        PruningError: the criterion or budget cannot serve this network, or the slimmed network
            does not compute what the masked one does.
    """
    start = perf_counter()
    ranks = ranked(method.criterion, facts)
    seconds = perf_counter() - start
    plan = method.budget.choose(facts.cmap, ranks, dense, share=step.share)
    made = cut_as(plan, facts, method.repair, step, example=example)
    alive, removed = alive_among_cut(ranks, plan) or (None, None)
    record = replace(
        made.record,
        removed=removed,
        removed_alive=alive,
        criterion_seconds=seconds,
        seconds=perf_counter() - start,
        counts={name: dict(rank.counts) for name, rank in ranks.items() if rank.counts},
        settings_found=method.budget.settings_found(facts.cmap, ranks, dense, share=step.share),
    )
    kept_scores = {name: rank.scores[list(plan.kept[name])] for name, rank in ranks.items()}
    return replace(made, record=record, scores=kept_scores)


def evidence(network: nn.Module, cmap: ChannelMap, step: Step, sample: Sample) -> Evidence:
    """Returns what criterion and repair may use in `step`."""
    groups = tuple(group for group in cmap.groups if group.name in step.groups)
    return Evidence(
        network, cmap, groups, **{f.name: getattr(sample, f.name) for f in fields(sample)}
    )


def cut_as(plan: Plan, facts: Evidence, repair: Repair, step: Step, *, example: Example) -> Cut:
    """Prunes the network of `facts` by a given plan, repairs it, and verifies the surgery.

    Raises:
        PruningError: the plan does not fit; or the slimmed network does not compute what the masked
            one does, or differs from the dense one by more than channels.
    """
    start = perf_counter()
    cmap = facts.cmap
    cmap.check(plan)
    folded = repair.fold(facts, plan)
    slimmed = slim(folded, cmap, plan)
    with cuda_math(exact=True):
        agreed = agreement(folded, slimmed, cmap, plan, example)
    if not isfinite(agreed.error):
        raise PruningError("the network's outputs are not finite; has its training diverged?")
    if not agreed.exact:
        raise PruningError(
            f"the slimmed network differs from the masked one by {agreed.error:.1e} (relative), "
            f"more than rounding in {agreed.dtype} explains ({agreed.tolerance:.0e}); prunebench "
            "cannot cut this network correctly"
        )
    require_as_planned(folded, slimmed, cmap, plan)
    repair.settle(slimmed, facts, plan)
    record = StepRecord(
        name=step.name,
        groups=list(step.groups),
        share=step.share,
        kept={name: len(kept) for name, kept in plan.kept.items()},
        criterion_seconds=0.0,
        seconds=perf_counter() - start,
        surgery_error=agreed.error,
        surgery_tolerance=agreed.tolerance,
        surgery_dtype=agreed.dtype,
        unprunable=dict(cmap.frozen),
    )
    return Cut(slimmed, plan, record)
