"""Network Slimming: the absolute value of a channel's batch-norm scale; higher = keep.

Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017. It is
the paper's criterion only for a network trained with an L1 penalty on these scales.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.criteria import Criterion, Evidence, GroupRank
from prunebench.errors import PruningError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.channels import ChannelGroup


@dataclass(frozen=True)
class Slimming(Criterion):
    """Scores a channel by |gamma|, or the mean where several norms scale it."""

    def rank(self, evidence: Evidence) -> dict[str, GroupRank]:
        """Ranks by weights alone.

        Raises:
            PruningError: a group has no norm with a scale.
        """
        return {group.name: GroupRank(scales(evidence.network, group)) for group in evidence.groups}


def scales(network: nn.Module, group: ChannelGroup) -> Tensor:
    """Returns the mean |gamma| of each class, float64 [group.size] on the CPU.

    Raises:
        PruningError: no norm scales some class.
    """
    import torch

    total = torch.zeros(group.size, dtype=torch.float64)
    count = torch.zeros(group.size, dtype=torch.float64)
    for site in group.norms:
        if site.parameter == "weight":
            gamma = network.get_parameter(site.name).detach().abs().cpu().double()
            site.add_to(total, gamma)
            site.add_to(count, torch.ones_like(gamma))
    if not bool((count > 0).all()):
        raise PruningError(
            f"criterion=slimming needs a norm with a scale behind {group.name}, and there is none; "
            "leave it out with budget.exclude, or choose another criterion"
        )
    return total / count
