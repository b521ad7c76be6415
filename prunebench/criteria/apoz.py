"""APoZ: how often a channel is zero behind its ReLU; the score is 1 - APoZ, higher = keep.

Hu et al., "Network Trimming", 2016: APoZ(c) is the fraction of zeros of map c over images and
pixels. Channels more than one standard deviation above their layer's mean APoZ go, in rounds with
training between. Images come from the training set.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from prunebench.criteria import Criterion, Evidence, GroupRank
from prunebench.errors import PruningError, require

if TYPE_CHECKING:
    from torch import Tensor

#: torch's names of activations with exact zeros
RELUS = ("relu", "relu_", "relu6", "hardtanh", "hardtanh_")
#: those of them that may leave values below zero; a ReLU6 is a hardtanh that does not
CLIPS = ("hardtanh", "hardtanh_")


@dataclass(frozen=True, kw_only=True)
class Apoz(Criterion):
    """Scores a channel by the fraction of non-zero activations.

    Attributes:
        above: standard deviations above its layer's mean APoZ beyond which a channel goes; used by
            budgets that take the criterion's own decision.
        num_samples: number of training images.
        chunk: most images per forward pass; fewer are taken where they are large.
    """

    above: float = 1.0
    num_samples: int = 512
    chunk: int = 64

    decides = True
    decides_in_rounds = True

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require(self.above >= 0, f"above must not be negative, got {self.above}")
        require(self.num_samples >= 1, f"num_samples must be at least 1, got {self.num_samples}")
        require(self.chunk >= 1, f"chunk must be at least 1, got {self.chunk}")

    @property
    def images_needed(self) -> int:
        """Number of training images."""
        return self.num_samples

    def rank(self, evidence: Evidence) -> dict[str, GroupRank]:
        """Ranks by the fraction of non-zero activations right behind each ReLU.

        Raises:
            PruningError: a group has no ReLU, or a clipped one with values below zero.
        """
        import torch

        functions = {g.name: g.activation.function if g.activation else "" for g in evidence.groups}
        for name, function in functions.items():
            if function not in RELUS:
                raise _refused(name, function or "nothing")
        from prunebench.analysis.chunks import images_at_once
        from prunebench.channels import look

        alive = {g.name: torch.zeros(g.size, dtype=torch.float64) for g in evidence.groups}
        seen = dict.fromkeys(alive, 0)
        network, cmap, run = evidence.network, evidence.cmap, evidence.task.run

        def add(name: str, features: Tensor) -> None:
            flat = features.flatten(2) if features.dim() > 2 else features[:, :, None]
            if functions[name] in CLIPS and bool((flat < 0).any()):
                raise _refused(name, "a hardtanh with values below zero")
            alive[name] += flat.count_nonzero((0, 2)).cpu()
            seen[name] += flat.shape[0] * flat.shape[2]

        takers = {name: partial(add, name) for name in alive}
        for some, _ in evidence.batches(self.num_samples, images_at_once(evidence, self.chunk)):
            look(takers, network, cmap, some, "activation", run=run)
        scores = {name: count / seen[name] for name, count in alive.items()}
        return {name: GroupRank(found, self._kept(found)) for name, found in scores.items()}

    def _kept(self, scores: Tensor) -> tuple[int, ...]:
        """Returns the channels whose APoZ, 1 - score, is not too far above the mean."""
        least = scores.mean() - self.above * scores.std(correction=0)
        # the margin: a layer of equal scores is never trimmed, however their mean is rounded
        return tuple((scores >= least - 1e-12).nonzero()[:, 0].tolist())


def _refused(name: str, found: str) -> PruningError:
    """Returns the error that says what follows a group instead of a ReLU."""
    return PruningError(
        f"criterion=apoz counts the zeros of a ReLU, and {name} is followed by {found}; leave it "
        "out with budget.exclude, or choose another criterion"
    )
