"""CAC: conditional accuracy change, estimated at every step of a training that prunes.

Z. Chen et al., "Dynamical Channel Pruning by Conditional Accuracy Change for Deep Neural Networks",
IEEE TNNLS 32(2), 2021. Its formulas are not public: estimators, gates and schedule are our
reconstruction from the abstract, and figures made with them are not the paper's. Cost: gates on
what every consumer reads, and one small reduction per step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.contracts import Assignment
from prunebench.criteria.cac.settings import CacSettings

if TYPE_CHECKING:
    from prunebench.criteria.cac.observer import CacObserver


@dataclass(frozen=True, kw_only=True)
class Cac(CacSettings):
    """Disturbs channels by random gates while training, and removes those that matter least."""

    def observer(self, assignment: Assignment) -> CacObserver:
        """Returns what looks on at the training and removes channels.

        Raises:
            PruningError: the training is too short for the estimates.
        """
        from prunebench.criteria.cac.observer import CacObserver

        return CacObserver(self, assignment)
