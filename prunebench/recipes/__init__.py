"""Recipes: how each phase of a run trains, as plain values; no torch.

A `Recipe` has one `Phase` each for baseline, between, pruning and finetune.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from prunebench.errors import require, require_choice

OPTIMIZERS = ("sgd", "adam", "adamw")
DECAYS = ("all", "weights")
SCHEDULES = ("constant", "step", "multistep", "cosine")
PRECISIONS = ("float32", "bf16", "fp16")
#: key of a recipe beside its phases; phases without a value of their own take it
OF_ALL_PHASES = "precision"
SCHEDULED_BY = ("epoch", "iteration")
L1_ON = ("all", "read")
HINGE_OVER = ("group", "network")
#: head -> its usual scale and margin
HEADS = {
    "softmax": (1.0, 0.0),
    "arcface": (64.0, 0.5),
    "cosface": (64.0, 0.4),
    "am_softmax": (30.0, 0.35),
}
#: the head of networks that end in an embedding, if none is named
USUAL = "arcface"


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of training; ``conf/recipe/phase/sgd.yaml`` explains each key."""

    epochs: int
    batch_size: int
    optimizer: str
    lr: float
    momentum: float
    nesterov: bool
    weight_decay: float
    decay: str
    schedule: str
    milestones: list[float]
    gamma: float
    warmup_epochs: float
    label_smoothing: float
    precision: str
    channels_last: bool
    accumulate: int = 1
    sync_batchnorm: bool = False
    schedule_by: str | None = None
    decay_of: dict[str, float] = field(default_factory=dict)
    bias_rate: float = 1.0
    ema: float = 0.0
    head: str | None = None
    head_scale: float | None = None
    head_margin: float | None = None
    gamma_l1: float = 0.0
    l1_on: str = "all"
    gamma_hinge: float = 0.0
    hinge_share: float = 0.0
    hinge_over: str = "group"

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require(self.epochs >= 0, f"epochs must be at least 0, got {self.epochs}")
        require(self.batch_size >= 1, f"batch_size must be at least 1, got {self.batch_size}")
        require_choice("optimizer", self.optimizer, OPTIMIZERS)
        require(self.lr > 0, f"lr must be positive, got {self.lr}")
        require(0 <= self.momentum < 1, f"momentum must lie in [0, 1), got {self.momentum}")
        require(
            not self.nesterov or (self.optimizer == "sgd" and self.momentum > 0),
            "nesterov needs optimizer=sgd with a momentum above 0",
        )
        require(self.weight_decay >= 0, f"weight_decay must not be below 0: {self.weight_decay}")
        require_choice("decay", self.decay, DECAYS)
        require_choice("schedule", self.schedule, SCHEDULES)
        self._check_milestones()
        require(0 < self.gamma <= 1, f"gamma must lie in (0, 1], got {self.gamma}")
        require(
            self.warmup_epochs >= 0 and (self.warmup_epochs <= self.epochs or not self.epochs),
            f"warmup_epochs must lie in [0, epochs={self.epochs}], got {self.warmup_epochs}",
        )
        require(
            0 <= self.label_smoothing < 1,
            f"label_smoothing must lie in [0, 1), got {self.label_smoothing}",
        )
        require_choice("precision", self.precision, PRECISIONS)
        self._check_scale()
        self._check_head()
        require(self.gamma_l1 >= 0, f"gamma_l1 must not be below 0, got {self.gamma_l1}")
        require(self.gamma_hinge >= 0, f"gamma_hinge must not be below 0, got {self.gamma_hinge}")
        require_choice("l1_on", self.l1_on, L1_ON)
        require_choice("hinge_over", self.hinge_over, HINGE_OVER)
        require(
            0 <= self.hinge_share < 1, f"hinge_share must lie in [0, 1), got {self.hinge_share}"
        )
        require(
            not self.gamma_hinge or self.hinge_share > 0,
            "gamma_hinge needs a hinge_share above 0: the fraction of channels it pushes",
        )

    def _check_scale(self) -> None:
        """Raises ConfigError for keys about batches, decay, rates or averages out of range."""
        require(
            1 <= self.accumulate <= self.batch_size,
            f"accumulate must lie in [1, batch_size={self.batch_size}], got {self.accumulate}",
        )
        if self.schedule_by is not None:
            require_choice("schedule_by", self.schedule_by, SCHEDULED_BY)
        low = [name for name, decay in self.decay_of.items() if decay < 0]
        require(not low, f"decay_of must not hold decays below 0, got {low}")
        require(self.bias_rate > 0, f"bias_rate must be positive, got {self.bias_rate}")
        require(0 <= self.ema < 1, f"ema must lie in [0, 1), got {self.ema}")

    @property
    def penalised(self) -> bool:
        """Whether a penalty pushes batch norms towards zero."""
        return self.gamma_l1 > 0 or self.gamma_hinge > 0

    @property
    def head_of(self) -> tuple[float, float]:
        """Scale and margin of the head."""
        scale, margin = HEADS[self.head or "softmax"]
        return (
            scale if self.head_scale is None else self.head_scale,
            margin if self.head_margin is None else self.head_margin,
        )

    def _check_head(self) -> None:
        """Raises ConfigError for keys of the head that do not fit."""
        if self.head is not None:
            require_choice("head", self.head, HEADS)
        given = [name for name in ("head_scale", "head_margin") if getattr(self, name) is not None]
        require(
            not given or self.head not in (None, "softmax"),
            f"{' and '.join(given)} needs a head with a margin: arcface, cosface or am_softmax",
        )
        scale, margin = self.head_of
        require(scale > 0, f"head_scale must be positive, got {scale}")
        require(0 <= margin < 1.5, f"head_margin must lie in [0, 1.5), got {margin}")

    def _check_milestones(self) -> None:
        """Raises ConfigError for milestones that the schedule cannot use."""
        marks = list(self.milestones)
        require(
            all(0 < mark < 1 for mark in marks) and marks == sorted(set(marks)),
            f"milestones must be ascending fractions in (0, 1), got {marks}",
        )
        require(
            self.schedule != "step" or len(marks) == 1,
            f"milestones must hold one fraction for schedule=step, got {marks}",
        )
        require(
            self.schedule != "multistep" or bool(marks),
            "milestones must hold at least one fraction for schedule=multistep",
        )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a run trains, phase by phase; the schema of ``conf/recipe/*.yaml``."""

    baseline: Phase
    between: Phase
    pruning: Phase
    finetune: Phase

    def __post_init__(self) -> None:
        """Raises ConfigError for values that do not suit their phase."""
        require(
            self.between.epochs == 0,
            "between.epochs must stay 0: the schedule says how long (schedule.epochs), "
            f"got {self.between.epochs}",
        )
        require(
            self.pruning.ema == 0,
            "pruning.ema must stay 0: channels go by the weights themselves, "
            f"got {self.pruning.ema}",
        )
        require(
            self.between.warmup_epochs <= 1,
            f"between.warmup_epochs must lie in [0, 1], got {self.between.warmup_epochs}",
        )

    def with_heads(self) -> Recipe:
        """Returns the recipe with a head in every phase, for networks that end in an embedding."""
        return Recipe(
            **{name: replace(phase, head=phase.head or USUAL) for name, phase in vars(self).items()}
        )
