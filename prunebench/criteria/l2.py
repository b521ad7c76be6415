"""L2: the Euclidean norm of a channel's filters; higher = keep.

Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, section 4.4, where it ranks almost
as L1 does; also the importance of He et al., "Soft Filter Pruning", IJCAI 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

from prunebench.analysis.filters import NORMALIZE, norms, scaled
from prunebench.criteria import Criterion, Evidence, GroupRank
from prunebench.errors import require_choice


@dataclass(frozen=True, kw_only=True)
class L2(Criterion):
    """Scores a channel by the Euclidean norm of the weights that produce it.

    Attributes:
        normalize: ``mean`` divides by the group's mean, ``none`` leaves raw norms; it matters only
            to budgets that compare layers.
    """

    normalize: str = "mean"

    def __post_init__(self) -> None:
        """Raises ConfigError for an unknown choice."""
        require_choice("normalize", self.normalize, NORMALIZE)

    def rank(self, evidence: Evidence) -> dict[str, GroupRank]:
        """Ranks by weights alone."""
        return {
            group.name: GroupRank(scaled(norms(evidence.network, group, 2), self.normalize))
            for group in evidence.groups
        }
