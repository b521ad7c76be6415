"""One pruning step: rank, choose, repair, slim, verify. Used by the runner and by `prune`."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from torch import Tensor, nn

from prunebench.budgets import Budget, Dense
from prunebench.channels import ChannelMap, Plan, slim, trace, verify
from prunebench.criteria import Criterion, Evidence
from prunebench.errors import PruningError
from prunebench.repairs import Repair

#: largest relative difference between masked and slimmed network that float32 rounding explains
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Method:
    """The choices that one step carries out."""

    criterion: Criterion
    budget: Budget
    repair: Repair

    @property
    def images_needed(self) -> int:
        """Number of training images that ranking and repairing want to see."""
        return max(self.criterion.images_needed, self.repair.images_needed)


@dataclass(frozen=True)
class Cut:
    """What a step made of a network.

    Attributes:
        network: the slimmed (and repaired) network.
        unrepaired: the network slimmed by the same plan without the repair's folding.
        plan: in the class numbering of the network that went in.
        error: largest relative difference between masked and slimmed network.
        criterion_seconds: time spent ranking.
    """

    network: nn.Module
    unrepaired: nn.Module
    plan: Plan
    error: float
    criterion_seconds: float


def dense_counts(cmap: ChannelMap) -> Dense:
    """Returns the counts of the network `cmap` was traced from."""
    whole = Plan({})
    sizes = {group.name: group.size for group in cmap.groups}
    return Dense(sizes=sizes, macs=cmap.macs(whole), params=cmap.params(whole))


def cut(
    network: nn.Module,
    method: Method,
    names: tuple[str, ...],
    dense: Dense,
    *,
    share: float,
    evidence: tuple[Tensor, Tensor, int],
    example: Tensor,
) -> Cut:
    """Prunes the groups `names` of `network`, which is left unchanged.

    Args:
        network: in eval mode.
        method: criterion, budget and repair.
        names: of the groups to rank and prune now.
        dense: counts of the unpruned network.
        share: how much of the way to the budget to go, in (0, 1].
        evidence: normalised training images [n, C, H, W], labels [n], and the seed.
        example: input [1, C, H, W] to trace and verify with.

    Raises:
        PruningError: the criterion or budget cannot serve this network, or the slimmed network
            does not compute what the masked one does.
    """
    cmap = trace(network, example)
    groups = tuple(group for group in cmap.groups if group.name in names)
    images, labels, seed = evidence
    facts = Evidence(network, cmap, groups, images, labels, seed)
    start = perf_counter()
    ranks = method.criterion.rank(facts)
    seconds = perf_counter() - start
    plan = method.budget.choose(cmap, ranks, dense, share=share)
    plan.check(cmap)
    folded = method.repair.fold(facts, plan)
    slimmed = slim(folded, cmap, plan)
    error = verify(folded, slimmed, cmap, plan, example)
    if not error <= TOLERANCE:
        raise PruningError(
            f"the slimmed network differs from the masked one by {error:.1e} (relative), more "
            f"than rounding explains ({TOLERANCE:.0e}); this network cannot be trusted to surgery"
        )
    unrepaired = slimmed if method.repair.identity else slim(network, cmap, plan)
    method.repair.settle(slimmed, facts)
    return Cut(slimmed, unrepaired, plan, error, seconds)
