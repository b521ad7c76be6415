"""APoZ: how often a channel is zero behind its ReLU; higher = keep, so the score is its opposite.

Hu et al., "Network Trimming", 2016: APoZ(c) is the fraction of zeros of map c over images and
pixels, and the highest go. The score is 1 - APoZ. Images come from the training set.
"""

from __future__ import annotations

from dataclasses import dataclass

from prunebench.criteria import Criterion, Evidence, GroupRank
from prunebench.errors import PruningError, require

#: torch's names of activations with exact zeros; ReLU6 is a hardtanh
RELUS = ("relu", "relu_", "relu6", "hardtanh", "hardtanh_")


@dataclass(frozen=True, kw_only=True)
class Apoz(Criterion):
    """Scores a channel by the fraction of non-zero activations.

    Attributes:
        num_samples: training images looked at.
        chunk: images per forward pass; memory, not the result, depends on it.
    """

    num_samples: int = 512
    chunk: int = 64

    def __post_init__(self) -> None:
        """Checks ranges."""
        require(self.num_samples >= 1, f"num_samples must be at least 1, got {self.num_samples}")
        require(self.chunk >= 1, f"chunk must be at least 1, got {self.chunk}")

    @property
    def images_needed(self) -> int:
        """Number of training images looked at."""
        return self.num_samples

    def rank(self, evidence: Evidence) -> dict[str, GroupRank]:
        """Counts zeros right behind the activation.

        Raises:
            PruningError: a group has no ReLU.
        """
        import torch

        for group in evidence.groups:
            found = group.activation.function if group.activation else "nothing"
            if found not in RELUS:
                raise PruningError(
                    f"criterion=apoz counts the zeros of a ReLU, and {group.name} is followed by "
                    f"{found}; leave it out with budget.exclude, or choose another criterion"
                )
        from prunebench.channels import capture

        alive = {g.name: torch.zeros(g.size, dtype=torch.float64) for g in evidence.groups}
        seen = dict.fromkeys(alive, 0)
        network, cmap, run = evidence.network, evidence.cmap, evidence.task.run
        for some, _ in evidence.batches(self.num_samples, self.chunk):
            maps = capture(network, cmap, some, evidence.groups, "activation", run=run)
            for name, features in maps.items():
                flat = features.flatten(2) if features.dim() > 2 else features[:, :, None]
                alive[name] += flat.count_nonzero((0, 2)).cpu()
                seen[name] += flat.shape[0] * flat.shape[2]
        return {name: GroupRank(count / seen[name]) for name, count in alive.items()}
