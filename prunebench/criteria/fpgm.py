"""FPGM: filters close to the layer's geometric median are replaceable; higher = keep.

He et al., "Filter Pruning via Geometric Median", CVPR 2019: g(c) = sum_j ||W[c] - W[j]||_2 within a
layer; the lowest go first. The authors' "mix" first removes the filters of lowest norm, then by g
among the survivors, with both counts taken from the full width; `norm_first` is the first fraction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.analysis.filters import NORMALIZE, filters, scaled
from prunebench.criteria import Criterion, Evidence, GroupRank
from prunebench.errors import require, require_choice

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Fpgm(Criterion):
    """Scores a channel by the sum of its filter's distances to the layer's other filters.

    Attributes:
        norm_first: fraction of each layer's channels that goes first, by lowest Euclidean norm;
            0 is plain FPGM, 0.1 the paper's mix. Distances are then to the survivors only.
        normalize: ``mean`` divides by the layer's mean score, ``none`` leaves raw sums; it matters
            only to budgets that compare layers.
    """

    norm_first: float = 0.0
    normalize: str = "mean"

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require(0 <= self.norm_first < 1, f"norm_first must lie in [0, 1), got {self.norm_first}")
        require_choice("normalize", self.normalize, NORMALIZE)

    def rank(self, evidence: Evidence) -> dict[str, GroupRank]:
        """Ranks by weights alone."""
        return {
            group.name: GroupRank(
                scaled(
                    distances(filters(evidence.network, group), norm_first=self.norm_first),
                    self.normalize,
                )
            )
            for group in evidence.groups
        }


def distances(table: Tensor, *, norm_first: float = 0.0) -> Tensor:
    """Returns each filter's sum of Euclidean distances to the others, float64 [C].

    Args:
        table: filters, float64 [C, weights].
        norm_first: fraction of channels; the int(C * norm_first) of lowest norm get negative
            scores, ordered by norm, and are left out of the others' distances.
    """
    import torch

    size = len(table)
    norms = table.norm(dim=1)
    order = torch.argsort(norms, stable=True)
    first = order[: int(size * norm_first + 1e-9)]
    rest = order[len(first) :]
    scores = torch.empty(size, dtype=torch.float64)
    # the direct form: a matrix product loses the small distances that decide here
    exact = "donot_use_mm_for_euclid_dist"
    scores[rest] = torch.cdist(table[rest], table[rest], compute_mode=exact).sum(1)
    scores[first] = torch.arange(len(first), dtype=torch.float64) - len(first)
    return scores
