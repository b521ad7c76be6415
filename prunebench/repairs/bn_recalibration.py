"""BN recalibration: batch norms learn their statistics anew on the slimmed network.

Removing channels shifts the input of every later batch norm. Running means and variances are
estimated anew from training images, without labels or gradients, as in Li et al., "EagleEye",
ECCV 2020 (adaptive batch norm). The images are augmented as in training, since the statistics that
the weights were trained with include the black borders of its crops.
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
    """Replaces running statistics by averages over batches of augmented training images.

    Attributes:
        images: number of training images.
        batch: most images per batch; all batches are equally large.
    """

    images: int = 2048
    batch: int = 256

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require(self.images >= 2, f"images must be at least 2, got {self.images}")
        require(self.batch >= 2, f"batch must be at least 2, got {self.batch}")

    @property
    def images_needed(self) -> int:
        """Number of training images."""
        return self.images

    def settle(self, slimmed: nn.Module, evidence: Evidence, plan: Plan) -> None:
        """Estimates the running statistics of every batch norm of `slimmed` anew, in place.

        Only batch norms run in training mode; dropout stays off. Modes and momenta are restored.
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
        network: changed in nothing but these statistics; only its batch norms run in training mode.
        run: runs the network on a batch of images.
        images: the images, of a kind that `rows` can slice.
        count: number of them that are used.
        batch: most images per batch; all batches are equally large.
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
            norm.momentum = None  # torch then takes the plain average
            norm.train()
        # equal parts, since a small last batch would weigh as much as a whole one
        for part in torch.arange(count).tensor_split(-(-count // batch)):
            run(rows(images, int(part[0]), int(part[-1]) + 1))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
