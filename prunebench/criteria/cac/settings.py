"""The settings of CAC: the keys of ``conf/criterion/cac.yaml``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.criteria import TrainingCriterion
from prunebench.errors import require, require_choice

if TYPE_CHECKING:
    from prunebench.recipes import Phase

ESTIMATORS = ("igg_soft", "igg_ce", "acc_diff")
SCORES = ("acc", "soft", "ce")
SCOPES = ("sample", "batch")


@dataclass(frozen=True, kw_only=True)
class CacSettings(TrainingCriterion):
    """Fields of CAC and their ranges; it imports no torch.

    Attributes:
        estimator: ``igg_soft`` and ``igg_ce`` integrate the derivative of the true class's
            probability or of the loss over the gate; ``acc_diff`` compares images with the
            channel on and off.
        score: what ``acc_diff`` compares: ``acc``, ``soft`` (probability) or ``ce``.
        p_off: probability that a gate is 0.
        p_uniform: probability that a gate is drawn from U(0, 1); otherwise it is 1.
        scope: whether gates are drawn for each image (``sample``) or for the whole ``batch``, which
            is noisier.
        ema_epochs: epochs after which a step counts for 1/e.
        n_min: images in which a channel must have been disturbed before it may go.
        start, end: where removal begins and must be done, as fractions of recipe.pruning. The gates
            are on from the first step to the end of removal.
        prune_every: steps between two removals.
        max_step: largest fraction of all channels that goes at once, in the last removal, too.
        per_cost: whether to rank by score per MACs (or whatever the budget limits) saved; a score
            below 0 is multiplied instead, so that of equal ones the costlier channel goes first.
        least: fraction of every group that always stays, and no fewer than 2 channels.
        evidence: number of standard errors; a channel goes only while its estimate minus so many is
            no higher than the running threshold: the highest estimate of a channel that has gone,
            at first 0 (our reading; the spec names a threshold and defines none). null = only the
            order of the estimates decides.
        holdout: fraction of the training images that are held out of the training; estimates are
            then made on those, which takes one more forward per step, in eval mode.
        recalibrate: number of augmented training images on which batch norms learn the statistics
            of the undisturbed network before each validation while gates are on; 0 = they keep
            those they have.
    """

    estimator: str
    score: str
    p_off: float
    p_uniform: float
    scope: str
    ema_epochs: float
    n_min: int
    start: float
    end: float
    prune_every: int
    max_step: float
    per_cost: bool
    least: float
    evidence: float | None
    holdout: float
    recalibrate: int

    reads_logits = True

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require_choice("estimator", self.estimator, ESTIMATORS)
        require_choice("score", self.score, SCORES)
        require_choice("scope", self.scope, SCOPES)
        for name, chance in (("p_off", self.p_off), ("p_uniform", self.p_uniform)):
            require(0 <= chance < 1, f"{name} must lie in [0, 1), got {chance}")
        total = self.p_off + self.p_uniform
        require(total < 1, f"p_off + p_uniform must be below 1, got {total:g}")
        needed = "p_off" if self.estimator == "acc_diff" else "p_uniform"
        require(
            getattr(self, needed) > 0, f"{needed} must be positive for estimator={self.estimator}"
        )
        require(self.ema_epochs > 0, f"ema_epochs must be positive, got {self.ema_epochs}")
        require(self.n_min >= 1, f"n_min must be at least 1, got {self.n_min}")
        require(
            0 <= self.start < self.end <= 1,
            f"start and end must satisfy 0 <= start < end <= 1, got {self.start} and {self.end}",
        )
        require(self.prune_every >= 1, f"prune_every must be at least 1, got {self.prune_every}")
        require(0 < self.max_step <= 1, f"max_step must lie in (0, 1], got {self.max_step}")
        require(0 <= self.least < 1, f"least must lie in [0, 1), got {self.least}")
        self._check_looks()

    def _check_looks(self) -> None:
        """Raises ConfigError for `evidence`, `holdout` or `recalibrate` out of range."""
        require(
            self.evidence is None or self.evidence > 0,
            f"evidence must be positive (1.64 is one-sided 95 %), or null, got {self.evidence}",
        )
        require(
            self.evidence is None or self.scope == "sample",
            "evidence needs scope=sample: images that share their gates are not independent",
        )
        require(0 <= self.holdout < 1, f"holdout must lie in [0, 1), got {self.holdout}")
        require(
            self.recalibrate == 0 or self.recalibrate >= 2,
            f"recalibrate must be 0 or at least 2 images, got {self.recalibrate}",
        )

    @property
    def images_needed(self) -> int:
        """Number of training images that recalibrate batch norms."""
        return self.recalibrate

    def check_phase(self, phase: Phase) -> None:
        """Raises ConfigError if ``recipe.pruning`` smooths labels."""
        require(
            phase.label_smoothing == 0,
            "recipe.pruning.label_smoothing must be 0 for criterion=cac, which reads the gradient "
            f"of the plain loss; got {phase.label_smoothing}",
        )
