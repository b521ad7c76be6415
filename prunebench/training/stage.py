"""Defines the setting of a training (`Stage`) and its result (`TrainResult`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from prunebench.checkpoints import Checkpoint
from prunebench.contracts import Observer
from prunebench.tracking.progress import Progress
from prunebench.training.recorder import Recorder


def unlogged(row: Mapping[str, object]) -> None:
    """Discards the row."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Says which training this is, where it runs, and who observes it.

    Attributes:
        name: unique within the run; part of every seed.
        seed: of the run.
        device: to train on.
        checkpoint: where the state is saved; the training continues from one that exists already.
        observers: called at every step, one after the other; each process has its own.
        progress: shows the user epochs and steps.
        recorder: records steps so that they can be replayed; None runs each from Python.
        log: receives one row per epoch. A resumed run may log its last epoch again, with the same
            figures: the later row counts.
    """

    name: str
    seed: int
    device: torch.device
    checkpoint: Checkpoint | None = None
    observers: Sequence[Observer] = ()
    progress: Progress = field(default_factory=lambda: Progress(quiet=True))
    recorder: Recorder | None = None
    log: Callable[[Mapping[str, object]], None] = unlogged


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """Holds the figures of one epoch, as counts.

    Attributes:
        epoch: counted from 1.
        lr: of the epoch's last step.
        loss: mean over the epoch's training images, while the weights changed.
        correct, seen: training images, augmented, while the weights changed.
        val_correct, val_seen: validation images after the epoch; 0 of 0 if there are none.
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

    def row(self, stage: str, epochs: int) -> dict[str, Any]:
        """Returns the record as a metrics row of `stage`, which has `epochs` epochs in all."""
        return {"stage": stage, "epochs": epochs, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """Holds the result of a training.

    Attributes:
        history: one record per epoch; empty for a phase of no epochs.
        best: the record of the (first) epoch with the best validation count; None without one.
        best_state: the state dict of that epoch, on the CPU; None if `best` is.
        seconds: of training, over all attempts.
    """

    history: tuple[EpochRecord, ...]
    best: EpochRecord | None
    best_state: dict[str, Tensor] | None
    seconds: float

    @property
    def last(self) -> EpochRecord | None:
        """The record of the last epoch."""
        return self.history[-1] if self.history else None
