"""The settings of AOFP: the keys of ``conf/criterion/aofp.yaml``."""

from __future__ import annotations

from dataclasses import dataclass

from prunebench.criteria import TrainingCriterion
from prunebench.errors import require, require_choice

BN_MODES = ("own", "base")
REDUCTIONS = ("batch", "example")
ESTIMATORS = ("mean", "ridge", "gram")
ON_FAIL = ("retry", "freeze")


@dataclass(frozen=True, kw_only=True)
class AofpSettings(TrainingCriterion):
    """Fields of AOFP and their ranges; it imports no torch.

    Attributes:
        theta: largest damage at which channels go; 0.01 is 1 % of the output's energy.
        strict: whether a damage of exactly theta is too much (the authors' PyTorch code) or small
            enough (their TensorFlow code).
        draws_per_half: draws of each process before a decision.
        warmup_steps: steps before the first draw.
        stagger: whether layers begin one after the other within the first half.
        score_every: steps between two scored ones.
        draws_per_step: draws per scored step, which share the undamaged output; of `confirm`, one.
        score_samples: images of a batch that are scored; None = all of them.
        bn_mode: ``own``: the masked path normalises by its own batch statistics (as the authors
            do); ``base``: by the unmasked ones, which gives 1.1 to 1.6 times larger damages.
        reduction: ``batch``: ratio of sums over the batch; ``example``: mean of each image's ratio.
        estimator: ``mean``: mean damage of a channel's draws (published); ``ridge``: regression of
            the damage on the draws; ``gram``: joint damages from a Gram matrix, without draws.
        ridge: strength of the regression's penalty.
        gram_batches: batches that a Gram matrix is summed over.
        confirm: draws of exactly the channels about to go, each on another batch, whose mean must
            pass, too; 0 = none.
        on_fail: ``retry`` starts over when a single channel still hurts (as the authors' code
            does); ``freeze`` ends a layer's search after `freeze_after` such failures in a row.
        freeze_after: see `on_fail`.
    """

    theta: float
    strict: bool
    draws_per_half: int
    warmup_steps: int
    stagger: bool
    score_every: int
    draws_per_step: int
    score_samples: int | None
    bn_mode: str
    reduction: str
    estimator: str
    ridge: float
    gram_batches: int
    confirm: int
    on_fail: str
    freeze_after: int

    decides = True

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require(self.theta >= 0, f"theta must not be negative, got {self.theta}")
        for name in (
            "draws_per_half", "score_every", "draws_per_step", "gram_batches", "freeze_after"
        ):  # fmt: skip
            value = getattr(self, name)
            require(value >= 1, f"{name} must be at least 1, got {value}")
        require(
            self.warmup_steps >= 0, f"warmup_steps must not be negative, got {self.warmup_steps}"
        )
        require(
            self.score_samples is None or self.score_samples >= 2,
            f"score_samples must be at least 2 images, or null, got {self.score_samples}",
        )
        require_choice("bn_mode", self.bn_mode, BN_MODES)
        require_choice("reduction", self.reduction, REDUCTIONS)
        require_choice("estimator", self.estimator, ESTIMATORS)
        require_choice("on_fail", self.on_fail, ON_FAIL)
        require(self.ridge > 0, f"ridge must be positive, got {self.ridge}")
        require(self.confirm >= 0, f"confirm must not be negative, got {self.confirm}")
        require(
            self.confirm > 0 or self.estimator == "mean",
            f"confirm must be at least 1 for estimator={self.estimator}, which predicts damage",
        )

    def harmless(self, damage: float) -> bool:
        """Whether `damage` is small enough for its channels to go."""
        return damage < self.theta if self.strict else damage <= self.theta
