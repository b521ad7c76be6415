"""AOFP: approximated oracle filter pruning, a binary search during training.

X. Ding et al., "Approximated Oracle Filter Pruning for Destructive CNN Width Optimization",
ICML 2019. Random halves of a layer's channels are zeroed on a separate path, and the change of the
next layer's output, t = sum (O - O')^2 / sum O^2, is the score of all channels in the half. Built
after the authors' two public releases (the paper's text was not at hand). Differences: the scoring
path leaves running statistics alone (in theirs the masked ones make up 53 %), takes no gradient,
and convolves the dropped channels only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.contracts import Assignment
from prunebench.criteria.aofp.settings import AofpSettings

if TYPE_CHECKING:
    from torch import nn

    from prunebench.channels import ChannelGroup, ChannelMap
    from prunebench.criteria.aofp.observer import AofpObserver


@dataclass(frozen=True, kw_only=True)
class Aofp(AofpSettings):
    """Prunes, while training, channels without which the next layer's output hardly changes."""

    def unscored(
        self, network: nn.Module, cmap: ChannelMap, groups: Sequence[ChannelGroup]
    ) -> dict[str, str]:
        """Returns the groups that are not read by exactly one layer, and why."""
        from prunebench.criteria.aofp.edges import unfit

        return unfit(network, groups)

    def observer(self, assignment: Assignment) -> AofpObserver:
        """Returns the observer that watches the training and prunes."""
        from prunebench.criteria.aofp.observer import AofpObserver

        return AofpObserver(self, assignment)
