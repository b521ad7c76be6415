"""What looks on at a training, and may prune in its course."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from prunebench.contracts.counts import Limit
from prunebench.contracts.evidence import Rows

if TYPE_CHECKING:
    from torch import Tensor, nn, optim

    from prunebench.channels import ChannelGroup, ChannelMap, Plan


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What a criterion that prunes during training is given.

    Attributes:
        cmap: channel map of the network that is trained.
        groups: the groups it may prune.
        limits: what it has to reach; none where it decides by itself when to stop.
        floors: group name -> fewest channels to keep.
        seed: of the run.
        epochs: of the training it watches.
        steps: per epoch.
        images: per epoch.
        log: receives a row whenever channels go.
        shown: training images as the training shows them, augmented, in a seeded random order; as
            many as the criterion needs, None for none.
        held: images and labels int64 [n] that the training leaves out, in a seeded random order;
            None where the criterion holds none.
    """

    cmap: ChannelMap
    groups: tuple[ChannelGroup, ...]
    limits: tuple[Limit, ...]
    floors: Mapping[str, int]
    seed: int
    epochs: int
    steps: int
    images: int
    log: Callable[[Mapping[str, Any]], None]
    shown: Rows | None = None
    held: tuple[Rows, Tensor] | None = None


@dataclass(frozen=True)
class Moment:
    """What an observer sees at one step.

    Attributes:
        epoch: counted from 0.
        step: within the epoch, counted from 0.
        steps: per epoch.
        labels: int64 [n] of the step's images: this process's part of the batch.
        mean_over: what an image's own derivative was divided by in the gradients.
        scale: what float16's scaler multiplied them by, 1 without one. Parameters have lost it.
    """

    epoch: int
    step: int
    steps: int
    labels: Tensor
    mean_over: float
    scale: float = 1.0


class Observer(Protocol):
    """Looks on at every step of a training and may change gradients and weights.

    What it draws at random must be a function of its seed and the moment (`seed_for`), and all
    else it remembers must be in its state dict: then a resumed run repeats it bit for bit. Each
    process has its own, and all must change the weights alike. What a class that inherits from
    this one leaves out does nothing.
    """

    @abstractmethod
    def start(self, network: nn.Module, optimizer: optim.Optimizer) -> None:
        """Called once per process, before any step and before `load_state_dict`."""

    def before_step(self, epoch: int, step: int, images: int) -> None:
        """Called before a step on so many images of this process; again if recording it fails."""
        return

    def after_backward(self, moment: Moment) -> None:
        """Called when the gradients of the step are there."""
        return

    def after_step(self, moment: Moment) -> bool:
        """Called when the weights have moved; True ends the phase early."""
        return False

    def validating(self) -> AbstractContextManager[None]:
        """Returns the block that an epoch's validation takes place in; it leaves nothing behind."""
        return nullcontext()

    def finished(self) -> None:
        """Called when the last step is done; takes off whatever `start` put on the network."""
        return

    def state_dict(self) -> dict[str, Any]:
        """Returns all it remembers: tensors, numbers, strings, lists and dicts."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` returned."""
        return


@runtime_checkable
class RepeatingObserver(Observer, Protocol):
    """An observer that does the same work on the same tensors at most steps: these can be recorded.

    It waits for nothing there, draws nothing, and its `after_step` returns False. Of a step that
    is replayed it hears before the step alone; what it draws then goes to where the step reads.
    """

    @abstractmethod
    def repeats(self, epoch: int, step: int, steps: int) -> Hashable | None:
        """Returns what tells a step's work from that of others; None where no other is alike.

        Asked behind `before_step`, and for an epoch's validation within `validating`.

        Args:
            epoch: counted from 0.
            step: within the epoch, counted from 0.
            steps: per epoch.
        """


class PruningObserver(Observer, Protocol):
    """An observer of the training loop that ends with a plan."""

    def plan(self) -> Plan:
        """Returns what is left so far, in the numbering of the network that is trained."""

    def counts(self) -> dict[str, dict[str, int]]:
        """Returns group name -> what was counted there on the way, for the record."""
