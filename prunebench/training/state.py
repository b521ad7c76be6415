"""Holds the state of one training, and saves and restores it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor, nn, optim
from torch.amp import GradScaler
from torch.optim.swa_utils import AveragedModel

from prunebench.errors import CheckpointError
from prunebench.recipes import Phase
from prunebench.training import distributed
from prunebench.training.optim import load_optimizer
from prunebench.training.split import Split, steps
from prunebench.training.stage import EpochRecord, Stage
from prunebench.training.tally import Tally


@dataclass(kw_only=True)
class Training:
    """Holds the state of one call of `train`.

    Attributes:
        network: as it is saved.
        forward: what a step calls; its gradients are those of all processes together.
        train, val: on the device; `train` is the same split in all processes, which share its
            batches.
        tally: of this process.
        scaler: scales the loss in fp16; otherwise it does nothing.
        average: moving average of the weights, if the phase asks for one.
        epoch: epochs done.
        step: steps done in the current epoch.
        over: whether an observer has ended the phase.
        seconds: spent on the current epoch, up to `clock`.
    """

    network: nn.Module
    forward: Callable[[Tensor], Tensor]
    phase: Phase
    stage: Stage
    optimizer: optim.Optimizer
    train: Split
    val: Split
    tally: Tally
    scaler: GradScaler
    average: AveragedModel | None = None
    epoch: int = 0
    step: int = 0
    over: bool = False
    seconds: float = 0.0
    clock: float = field(default_factory=time.perf_counter)
    history: list[EpochRecord] = field(default_factory=list)
    best: EpochRecord | None = None
    best_state: dict[str, Tensor] | None = None

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return steps(len(self.train), self.phase.batch_size)

    @property
    def shown(self) -> nn.Module:
        """The network to validate and to return: the moving average if there is one."""
        return self.network if self.average is None else self.average.module

    def tick(self) -> None:
        """Updates `seconds` to now."""
        now = time.perf_counter()
        self.seconds += now - self.clock
        self.clock = now

    def save(self) -> None:
        """Saves all that the rest of the training depends on; all processes must call it."""
        self.tick()
        parts = distributed.from_all(
            {
                "tally": self.tally.state_dict(),
                "observers": [observer.state_dict() for observer in self.stage.observers],
            }
        )
        if self.stage.checkpoint is None:  # process 0 writes it
            return
        self.stage.checkpoint.save(
            {
                "identity": self._identity(),
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "average": self.average.state_dict() if self.average else None,
                "processes": parts,
                "epoch": self.epoch,
                "step": self.step,
                "over": self.over,
                "seconds": self.seconds,
                "history": [asdict(record) for record in self.history],
                "best": asdict(self.best) if self.best else None,
                "best_state": self.best_state,
            }
        )

    def resume(self) -> None:
        """Continues from the checkpoint, if there is one; all processes must call it.

        Raises:
            CheckpointError: it is damaged or belongs to another training.
        """
        checkpoint = self.stage.checkpoint
        state = distributed.from_first(checkpoint.load() if checkpoint else None)
        if state is None:
            return
        self._load_network(state)
        load_optimizer(self.optimizer, state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        part = state["processes"][distributed.rank()]
        self.tally.load_state_dict(part["tally"])
        for observer, remembered in zip(self.stage.observers, part["observers"], strict=True):
            observer.load_state_dict(remembered)
        self.epoch, self.step, self.over = state["epoch"], state["step"], state["over"]
        self.seconds, self.best_state = state["seconds"], state["best_state"]
        self.history = [EpochRecord(**record) for record in state["history"]]
        self.best = EpochRecord(**state["best"]) if state["best"] else None

    def _load_network(self, state: Mapping[str, Any]) -> None:
        """Loads the weights of `state`.

        Raises:
            CheckpointError: it is of another training or network.
        """
        path = self.stage.checkpoint.path if self.stage.checkpoint else "the checkpoint"
        own, found = self._identity(), state.get("identity", {})
        differing = [key for key in own if found.get(key) != own[key]]
        if differing:
            raise CheckpointError(
                f"{path} is the checkpoint of another training: its {differing[0]} is "
                f"{found.get(differing[0])}, not {own[differing[0]]}; delete it to start anew"
            )
        try:
            self.network.load_state_dict(state["network"])
        except RuntimeError:
            raise CheckpointError(
                f"{path} is of another network; delete it to start anew"
            ) from None

    def _identity(self) -> dict[str, Any]:
        """Returns what must be equal in a checkpoint for this training to go on from it."""
        return {
            "stage": self.stage.name,
            "seed": self.stage.seed,
            "phase": {**asdict(self.phase), "milestones": list(self.phase.milestones)},
            "n": len(self.train),
            "number of processes": distributed.size(),
            "number of observers": len(self.stage.observers),
        }
