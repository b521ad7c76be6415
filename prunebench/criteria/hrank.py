"""HRank: the mean matrix rank of a channel's feature maps; higher = keep.

Lin et al., "HRank: Filter Pruning using High-Rank Feature Map", CVPR 2020. A singular value counts
when it exceeds max(H, W) * eps * (largest singular value), with float32's eps. On 1x1 and 2x2 maps
nearly all ranks tie; ties go to the lower index.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from prunebench.criteria import Criterion, Evidence, GroupRank
from prunebench.errors import PruningError, require

if TYPE_CHECKING:
    from torch import Tensor

    from prunebench.channels import ChannelGroup


@dataclass(frozen=True, kw_only=True)
class Hrank(Criterion):
    """Scores a channel by the mean rank of its maps right behind the activation.

    Attributes:
        num_samples: number of training images.
        augmented: whether images are augmented (shifted, mirrored) as in training, as the authors'
            code does; else they are taken as stored.
        chunk: most images per forward pass; fewer are taken where they are large.
    """

    num_samples: int = 512
    augmented: bool = False
    chunk: int = 64

    comparable = False  # a rank is at most the map's side, which differs from layer to layer

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require(self.num_samples >= 1, f"num_samples must be at least 1, got {self.num_samples}")
        require(self.chunk >= 1, f"chunk must be at least 1, got {self.chunk}")

    @property
    def images_needed(self) -> int:
        """Number of training images."""
        return self.num_samples

    def rank(self, evidence: Evidence) -> dict[str, GroupRank]:
        """Ranks by the mean rank of maps over images.

        Raises:
            PruningError: the feature maps of a group are not two-dimensional.
        """
        import torch

        from prunebench.analysis.chunks import images_at_once
        from prunebench.channels import look

        for group in evidence.groups:
            _require_maps(group)
        network, cmap, run = evidence.network, evidence.cmap, evidence.task.run
        images = min(self.num_samples, evidence.size)
        total = {g.name: torch.zeros(g.size, dtype=torch.float64) for g in evidence.groups}

        def add(name: str, features: Tensor) -> None:
            total[name] += ranks(features).sum(0).cpu()

        takers = {name: partial(add, name) for name in total}
        shown = replace(evidence, images=evidence.augmented) if self.augmented else evidence
        for some, _ in shown.batches(images, images_at_once(evidence, self.chunk)):
            look(takers, network, cmap, some, "activation", run=run)
        return {name: GroupRank(ranked / images) for name, ranked in total.items()}


def _require_maps(group: ChannelGroup) -> None:
    """Raises for channels of 1-d or 3-d convolutions and of tokens, whose ranks would all tie."""
    dims = 4 if group.activation is None else len(group.activation.shape)
    if dims not in (2, 4):
        raise PruningError(
            f"criterion=hrank takes the rank of maps of two dimensions, and the channels of "
            f"{group.name} hold {dims - 2}-d ones; leave the group out with budget.exclude, or "
            "choose another criterion"
        )


def ranks(features: Tensor) -> Tensor:
    """Returns the rank of every map, int64 [N, C].

    Args:
        features: float32 [N, C, H, W]; [N, C] counts as 1x1 maps.
    """
    import torch

    maps = features if features.dim() == 4 else features.reshape(*features.shape[:2], 1, -1)
    values = torch.linalg.svdvals(maps.float())
    least = max(maps.shape[2:]) * torch.finfo(torch.float32).eps * values[..., :1]
    counted: Tensor = (values > least).sum(2)
    return counted
