"""L1: the sum of absolute weights of a channel's filters; higher = keep.

Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017: the full filter, no bias, no batch
norm. Where several layers write to one channel (a residual stream), their filters are added up.
"""

from __future__ import annotations

from dataclasses import dataclass

from prunebench.analysis.filters import NORMALIZE, norms, scaled
from prunebench.criteria import Criterion, Evidence, GroupRank
from prunebench.errors import require_choice


@dataclass(frozen=True, kw_only=True)
class L1(Criterion):
    """Scores a channel by the sum of absolute weights that produce it.

    Attributes:
        normalize: ``mean`` divides by the group's mean, ``none`` leaves raw sums; it matters only
            to budgets that compare layers.
    """

    normalize: str = "mean"

    def __post_init__(self) -> None:
        """Raises ConfigError for an unknown choice."""
        require_choice("normalize", self.normalize, NORMALIZE)

    def rank(self, evidence: Evidence) -> dict[str, GroupRank]:
        """Ranks by weights alone."""
        return {
            group.name: GroupRank(scaled(norms(evidence.network, group, 1), self.normalize))
            for group in evidence.groups
        }
