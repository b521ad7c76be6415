"""Recipes: how the baseline and the fine-tune are trained; plain values, no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from prunebench.errors import require, require_choice

OPTIMIZERS = ("sgd", "adam", "adamw")
DECAYS = ("all", "weights")
SCHEDULES = ("constant", "step", "multistep", "cosine")
PRECISIONS = ("float32", "bf16")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of training.

    Attributes:
        epochs: 0 trains nothing.
        batch_size: images per step; the last batch of an epoch may be smaller.
        optimizer: ``sgd``, ``adam`` or ``adamw``.
        lr: peak learning rate.
        momentum: of sgd; the first beta of adam and adamw.
        nesterov: Nesterov momentum (sgd).
        weight_decay: L2 penalty added to the gradient (sgd, adam) or decoupled (adamw).
        decay: which parameters decay: ``all``, or only the ``weights`` of conv and linear layers
            (no biases, no norms, no PReLU slopes).
        schedule: ``constant``; ``step``: times `gamma` whenever a further ``milestones[0]`` of
            the phase has passed; ``multistep``: times `gamma` at each milestone; ``cosine``: half
            a cosine from `lr` to 0.
        milestones: ascending fractions of the phase in (0, 1); only step and multistep read them.
            The lower rate holds from epoch ``round(fraction * epochs) + 1``, counted from 1.
        gamma: factor at each milestone, in (0, 1].
        warmup_epochs: linear warm-up from about 0 to `lr`, step by step.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1).
        precision: ``float32``, or ``bf16`` for autocast to bfloat16.
        channels_last: memory format of images and kernels.
        gamma_l1: weight of an L1 penalty on the scales of all batch norms (Network Slimming).
        gamma_hinge: weight of the penalty that pushes batch norms below zero, for
            criterion=bn_probability; see `training.sparsity`.
        hinge_share: fraction of each channel group that the hinge pushes.
    """

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
    gamma_l1: float = 0.0
    gamma_hinge: float = 0.0
    hinge_share: float = 0.0

    def __post_init__(self) -> None:
        """Checks ranges."""
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
        require(self.gamma_l1 >= 0, f"gamma_l1 must not be below 0, got {self.gamma_l1}")
        require(self.gamma_hinge >= 0, f"gamma_hinge must not be below 0, got {self.gamma_hinge}")
        require(
            0 <= self.hinge_share < 1, f"hinge_share must lie in [0, 1), got {self.hinge_share}"
        )
        require(
            not self.gamma_hinge or self.hinge_share > 0,
            "gamma_hinge needs a hinge_share above 0: the fraction of channels it pushes",
        )

    def _check_milestones(self) -> None:
        """Checks that the milestones are what the schedule can use."""
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

    def lasting(self, epochs: int) -> Phase:
        """Returns this phase with another number of epochs."""
        return replace(self, epochs=epochs)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a run trains; the schema of ``conf/recipe/*.yaml``.

    Attributes:
        baseline: the dense network, from its initial weights.
        between: the short training after a pruning step; its length is the schedule's to say.
        pruning: the training that ``schedule=during_training`` prunes in.
        finetune: the slimmed network, from the weights it inherits.
    """

    baseline: Phase
    between: Phase
    pruning: Phase
    finetune: Phase

    def __post_init__(self) -> None:
        """Checks what the phases cannot check alone."""
        require(
            self.between.epochs == 0,
            "between.epochs must stay 0: the schedule says how long (schedule.epochs), "
            f"got {self.between.epochs}",
        )
        require(
            self.between.warmup_epochs <= 1,
            f"between.warmup_epochs must lie in [0, 1], got {self.between.warmup_epochs}",
        )
