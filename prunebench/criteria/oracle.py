"""Oracle: how much the loss changes when one channel alone is removed; higher = keep.

It is what first-order criteria approximate: Molchanov et al., ICLR 2017, section 2.2. Each channel
is masked in turn, and all images run through the network from the channel's layer on. So the cost
is up to one pass over the images per channel; take few images.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from prunebench.contracts import rows_in
from prunebench.criteria import Criterion, Evidence, GroupRank
from prunebench.errors import require, require_choice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from prunebench.channels import ChannelGroup, ChannelMap
    from prunebench.contracts import Task

CHANGES = ("rise", "absolute")


@dataclass(frozen=True, kw_only=True)
class Oracle(Criterion):
    """Scores a channel by the mean loss without it minus the mean loss with it.

    Attributes:
        change: ``absolute`` scores by the size of the difference, as we recall equation 1 of the
            paper; ``rise`` by its signed value, so that harmful channels go first. Those may go
            singly, but not all together: the public ResNet-56 with 30 % fewer MACs kept 12.7 %
            top-1 right after the cut, and 73.2 % with ``absolute``. These are test accuracies, and
            they chose the default; so the oracle's rows are no fair comparison.
        num_samples: number of training images.
        chunk: most images per forward pass; fewer are taken where they are large.
    """

    change: str = "absolute"
    num_samples: int = 256
    chunk: int = 256

    reads_logits = True

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require_choice("change", self.change, CHANGES)
        require(self.num_samples >= 1, f"num_samples must be at least 1, got {self.num_samples}")
        require(self.chunk >= 1, f"chunk must be at least 1, got {self.chunk}")

    @property
    def images_needed(self) -> int:
        """Number of training images."""
        return self.num_samples

    def rank(self, evidence: Evidence) -> dict[str, GroupRank]:
        """Masks every channel in turn, in eval mode; a group's only channel scores 0."""
        import torch

        with torch.no_grad():
            whole = self._loss(evidence)
            return {group.name: self._ablated(evidence, group, whole) for group in evidence.groups}

    def _ablated(self, evidence: Evidence, group: ChannelGroup, whole: float) -> GroupRank:
        """Returns the change of the loss for every class of `group`.

        The part of the network before the group's first layer runs once for all of them.
        """
        import torch

        from prunebench.analysis.beginning import resumed, serves, shared
        from prunebench.channels import Plan, mask
        from prunebench.channels.followable import plain

        if group.size == 1:
            return GroupRank(torch.zeros(1, dtype=torch.float64))

        def without(gone: int) -> nn.Module:
            rest = [number for number in range(group.size) if number != gone]
            return mask(evidence.network, evidence.cmap, Plan({group.name: rest}))

        network = plain(evidence.network)
        own = _own(network, evidence.cmap, group)
        total: list[Any] = [0.0] * group.size
        for some, targets in self._batches(evidence):
            run = partial(evidence.task.run, inputs=some)
            outputs = shared(run, network, own)
            if outputs and not serves(run, outputs, partial(without, 0)):
                outputs = {}
            for gone in range(group.size):
                made = resumed(run, without(gone), outputs)
                total[gone] += _summed(evidence.task, made, some, targets)
        losses = torch.tensor([float(loss) for loss in total], dtype=torch.float64)
        scores = losses / self._images(evidence) - whole
        return GroupRank(scores.abs() if self.change == "absolute" else scores)

    def _loss(self, evidence: Evidence) -> float:
        """Returns the mean loss of the whole network."""
        task, total = evidence.task, 0.0
        for some, targets in self._batches(evidence):
            total += _summed(task, task.run(evidence.network, some), some, targets)
        return float(total) / self._images(evidence)

    def _images(self, evidence: Evidence) -> int:
        """Returns the number of images used."""
        return min(self.num_samples, evidence.size)

    def _batches(self, evidence: Evidence) -> Iterator[tuple[Any, Any]]:
        """Yields inputs and targets of these images, batch by batch."""
        from prunebench.analysis.chunks import images_at_once

        return evidence.batches(self._images(evidence), images_at_once(evidence, self.chunk))


def _summed(task: Task, outputs: Any, some: Any, targets: Any) -> Any:
    """Returns the loss of one batch, summed over its images, float64 []."""
    import torch

    if isinstance(outputs, torch.Tensor) and task.loss is None:
        outputs = outputs.double()
    return task.summed_loss(outputs, targets, rows_in(some)).double()


def _own(network: nn.Module, cmap: ChannelMap, group: ChannelGroup) -> list[Tensor]:
    """Returns the parameters and buffers that hold channels of `group`, which its masks change."""
    from prunebench.channels.members import named_tensors

    number = cmap.groups.index(group)
    names = {
        name
        for (name, _), classes in cmap.dims.items()
        if (cmap.locate[0][classes] == number).any()
    }
    return [tensor for name, tensor in named_tensors(network) if name in names]
