"""Oracle: by how much the loss changes when a channel alone is gone; higher = keep.

The yardstick that first-order criteria estimate: Molchanov et al., ICLR 2017, section 2.2. Every
channel is masked in turn and all images run through the network, so the cost is one forward sweep
per channel; few images make it bearable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.contracts import rows_in
from prunebench.criteria import Criterion, Evidence, GroupRank
from prunebench.errors import require, require_choice

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.channels import ChannelGroup

CHANGES = ("rise", "absolute")


@dataclass(frozen=True, kw_only=True)
class Oracle(Criterion):
    """Scores a channel by the mean loss without it, less the mean loss with it.

    Attributes:
        change: ``absolute`` its size, as we recall equation 1 there; ``rise`` as it is, so that
            channels that do harm go first. Each of them may go alone, and not all together: the
            public ResNet-56 with 30 % fewer MACs kept 12.7 % top-1 right after the cut, and 73.2 %
            with ``absolute``. These are test accuracies, and they chose the default: it is no
            choice on validation images, and rows of the oracle are no fair rivals by it.
        num_samples: training images looked at.
        chunk: most images per forward pass; fewer where they are large.
    """

    change: str = "absolute"
    num_samples: int = 256
    chunk: int = 256

    reads_logits = True

    def __post_init__(self) -> None:
        """Checks ranges."""
        require_choice("change", self.change, CHANGES)
        require(self.num_samples >= 1, f"num_samples must be at least 1, got {self.num_samples}")
        require(self.chunk >= 1, f"chunk must be at least 1, got {self.chunk}")

    @property
    def images_needed(self) -> int:
        """Number of training images looked at."""
        return self.num_samples

    def rank(self, evidence: Evidence) -> dict[str, GroupRank]:
        """Masks every channel in turn, in eval mode. A group's only channel scores 0."""
        whole = self._loss(evidence, evidence.network)
        return {group.name: self._ablated(evidence, group, whole) for group in evidence.groups}

    def _ablated(self, evidence: Evidence, group: ChannelGroup, whole: float) -> GroupRank:
        """Returns the change of the loss for every class of `group`."""
        import torch

        from prunebench.channels import Plan, mask

        scores = torch.zeros(group.size, dtype=torch.float64)
        for gone in range(group.size if group.size > 1 else 0):
            rest = [number for number in range(group.size) if number != gone]
            masked = mask(evidence.network, evidence.cmap, Plan({group.name: rest}))
            scores[gone] = self._loss(evidence, masked) - whole
        return GroupRank(scores.abs() if self.change == "absolute" else scores)

    def _loss(self, evidence: Evidence, network: nn.Module) -> float:
        """Returns the mean loss over the images, summed up in float64."""
        import torch

        from prunebench.analysis.chunks import images_at_once

        task, images = evidence.task, min(self.num_samples, evidence.size)
        size = images_at_once(evidence, self.chunk)
        total: Tensor | float = 0.0
        with torch.inference_mode():
            for some, targets in evidence.batches(images, size):
                outputs = task.run(network, some)
                if isinstance(outputs, torch.Tensor) and task.loss is None:
                    outputs = outputs.double()
                total += task.summed_loss(outputs, targets, rows_in(some)).double()
        return float(total) / images
