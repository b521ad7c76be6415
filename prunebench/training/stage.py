"""What a training is told, what looks on, and what it comes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn, optim

from prunebench.checkpoints import Checkpoint
from prunebench.tracking.progress import Progress


@dataclass(frozen=True)
class Moment:
    """What an observer sees at one step.

    Attributes:
        epoch: counted from 0.
        step: within the epoch, counted from 0.
        steps: per epoch.
        images, labels: of the step, as fed to the network: this process's part of the batch.
        loss: their mean, scalar, on the device and detached.
        mean_over: what an image's own derivative was divided by in the gradients.
    """

    epoch: int
    step: int
    steps: int
    images: Tensor
    labels: Tensor
    loss: Tensor
    mean_over: float


class Observer(Protocol):
    """Pruning during training: looks on at every step and may change gradients and weights.

    What it draws at random must be a function of its seed and the moment (`seed_for`), and all
    else it remembers must be in its state dict: then a resumed run repeats it bit for bit. Each
    process has its own, and all must change the weights alike.
    """

    def start(self, network: nn.Module, optimizer: optim.Optimizer) -> None:
        """Called once per process, before any step and before `load_state_dict`."""

    def after_backward(self, moment: Moment) -> None:
        """Called when the gradients of the step are there."""

    def after_step(self, moment: Moment) -> bool:
        """Called when the weights have moved; True ends the phase early."""

    def finished(self) -> None:
        """Called when the last step is done; takes off whatever `start` put on the network."""

    def state_dict(self) -> dict[str, Any]:
        """Returns all it remembers: tensors, numbers, strings, lists and dicts."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` returned."""


def _ignore(row: Mapping[str, object]) -> None:
    """Keeps nothing."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Which training this is, where it runs and who is told.

    Attributes:
        name: unique within the run; part of every seed.
        seed: of the run.
        device: trained on.
        checkpoint: where the state is left; a state found there is gone on from.
        observer: prunes during training.
        progress: tells the user.
        log: receives one row per epoch. A run that was killed may log its last epoch again, with
            the same figures: the later row counts.
    """

    name: str
    seed: int
    device: torch.device
    checkpoint: Checkpoint | None = None
    observer: Observer | None = None
    progress: Progress = field(default_factory=lambda: Progress(quiet=True))
    log: Callable[[Mapping[str, object]], None] = _ignore


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """The figures of one epoch, as counts.

    Attributes:
        epoch: counted from 1.
        lr: of the epoch's last step.
        loss: mean over the epoch's training images, while the weights moved.
        correct, seen: training images, augmented, while the weights moved.
        val_correct, val_seen: validation images after the epoch; 0 of 0 where there are none.
        seconds: of this epoch, validation included.
    """

    epoch: int
    lr: float
    loss: float
    correct: int
    seen: int
    val_correct: int
    val_seen: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a training came to.

    Attributes:
        history: one record per epoch; empty for a phase of no epochs.
        best: the record of the (first) epoch with the best validation count, None without one.
        best_state: the state dict of that epoch, on the CPU; None where `best` is.
        seconds: of training, over all processes that had a part in it.
    """

    history: tuple[EpochRecord, ...]
    best: EpochRecord | None
    best_state: dict[str, Tensor] | None
    seconds: float

    @property
    def last(self) -> EpochRecord | None:
        """The record of the last epoch."""
        return self.history[-1] if self.history else None
