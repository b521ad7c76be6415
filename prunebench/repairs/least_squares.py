"""Least squares: rescales the kept channels to make up for the cut ones.

Luo et al., "ThiNet", ICCV 2017, section 3.2.3: channel c adds x_c to the next layer's output y
before its bias. The factors w minimise |y - sum_{c kept} w_c x_c|^2 and are folded into the next
layer, W[:, c] *= w_c. Biases stay.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.analysis.gram import GramCollection, rescale
from prunebench.errors import require
from prunebench.repairs import Repair

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.channels import Plan, Site
    from prunebench.contracts import Evidence


@dataclass(frozen=True, kw_only=True)
class LeastSquares(GramCollection, Repair):
    """Fits one factor per kept channel and consumer, and folds it into the consumer.

    If several groups are cut in one step, each is fitted as if the others stayed whole.

    Attributes:
        ridge: pull of the factors towards 1, relative to the mean energy of a kept channel.
    """

    ridge: float = 1e-08

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        GramCollection.__post_init__(self)
        require(0 < self.ridge < 1, f"ridge must lie in (0, 1), got {self.ridge}")

    def fold(self, evidence: Evidence, plan: Plan) -> nn.Module:
        """Returns a copy of the network whose consumers rescale the kept channels.

        Raises:
            PruningError: a consumer cannot be measured.
        """
        groups = [g for g in evidence.groups if len(plan.kept.get(g.name, range(g.size))) < g.size]
        if not groups:
            return evidence.network
        collected = self.grams(evidence, groups)
        folded = deepcopy(evidence.network)
        weights = dict(folded.named_parameters(remove_duplicate=False))
        for group in groups:
            kept = plan.kept[group.name]
            for site in group.consumers:
                found = rescale(collected[group.name][site.name], kept, ridge=self.ridge)
                factors = found.new_ones(group.size + 1)
                factors[list(kept)] = found
                _multiply(weights[site.name], site, factors)
        return folded


def _multiply(weight: Tensor, site: Site, factors: Tensor) -> None:
    """Multiplies each slice of `weight` by the factor of its class.

    The last factor, 1, serves positions of other groups, whose class is -1.
    """
    import torch

    shape = [-1 if dim == site.dim else 1 for dim in range(weight.dim())]
    with torch.no_grad():
        weight.mul_(factors[site.classes].view(shape).to(weight))
