"""CAC: conditional accuracy change, estimated at every step of training while it prunes.

Z. Chen et al., "Dynamical Channel Pruning by Conditional Accuracy Change for Deep Neural Networks",
IEEE TNNLS 32(2), 2021. Its formulas are not public: estimators, gates and schedule are our
reconstruction from the abstract, and numbers made with them are not the paper's. Cost: gates on the
input of every consumer, and one small reduction per step.
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
    """Disturbs channels by random gates during training, and removes those that matter least."""

    def observer(self, assignment: Assignment) -> CacObserver:
        """Returns the observer that watches the training and removes channels.

        Raises:
            PruningError: the training is too short for the estimates.
        """
        from prunebench.criteria.cac.observer import CacObserver

        return CacObserver(self, assignment)
