"""BN recalibration: batch norms re-learn their statistics on the slimmed network.

Removing channels shifts what every later batch norm sees. Its running mean and variance are
estimated anew from training images, without labels or gradients, as in Li et al., "EagleEye",
ECCV 2020 (adaptive batch norm). The images are shown as in training: the black borders of its crops
are in the statistics that the weights have learned with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunebench.contracts import rows
from prunebench.errors import require
from prunebench.repairs import Repair

if TYPE_CHECKING:
    from torch import nn

    from prunebench.channels import Plan
    from prunebench.contracts import Evidence


@dataclass(frozen=True, kw_only=True)
class BnRecalibration(Repair):
    """Replaces running statistics by their plain average over batches of augmented training images.

    Attributes:
        images: training images shown.
        batch: most images per batch; batches are equally large.
    """

    images: int = 2048
    batch: int = 256

    def __post_init__(self) -> None:
        """Checks ranges."""
        require(self.images >= 2, f"images must be at least 2, got {self.images}")
        require(self.batch >= 2, f"batch must be at least 2, got {self.batch}")

    @property
    def images_needed(self) -> int:
        """Number of training images shown."""
        return self.images

    def settle(self, slimmed: nn.Module, evidence: Evidence, plan: Plan) -> None:
        """Re-estimates the running statistics of every batch norm of `slimmed` in place.

        Only batch norms run in train mode; dropout stays off. A network without batch norms is left
        alone. Train modes and momenta are as before afterwards.
        """
        relearn_statistics(
            slimmed,
            lambda some: evidence.task.run(slimmed, some),
            evidence.augmented,
            count=min(self.images, evidence.size),
            batch=self.batch,
        )


def relearn_statistics(
    network: nn.Module, run: Callable[[Any], Any], images: Any, *, count: int, batch: int
) -> None:
    """Replaces the running statistics of all batch norms by their plain average over batches.

    Args:
        network: only its batch norms run in train mode; all else is as it was afterwards.
        run: takes images through it.
        images: see `rows`.
        count: of them that are shown.
        batch: most images per batch; batches are equally large.
    """
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    from prunebench.channels import in_mode

    norms = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    with in_mode(network), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch's word for the plain average
            norm.train()
        # equal parts, since a small last batch would weigh as much as a whole one
        for part in torch.arange(count).tensor_split(-(-count // batch)):
            run(rows(images, int(part[0]), int(part[-1]) + 1))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
