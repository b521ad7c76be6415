"""Observers: objects that the training loop calls at every step, and that may prune."""

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
    """All that a criterion which prunes during training is given.

    Attributes:
        cmap: channel map of the network in training.
        groups: the groups it may prune.
        limits: the limits it must reach; none if it decides by itself when to stop.
        floors: group name -> fewest channels to keep.
        seed: seed of the run.
        epochs: epochs of the training.
        steps: steps per epoch.
        images: images per epoch.
        log: receives a row whenever channels go.
        shown: augmented training images in a seeded random order, as many as the criterion's
            `images_needed`; None for none.
        held: images, and labels int64 [n], that are held out of the training, in a seeded random
            order; None if the criterion's `holdout` is 0.
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
    """One step of a training, as an observer sees it.

    Attributes:
        epoch: counted from 0.
        step: counted from 0 within the epoch.
        steps: steps per epoch.
        labels: int64 [n]; labels of this process's part of the batch.
        mean_over: number by which each image's own gradient was divided.
        scale: factor of float16's loss scaler in the gradients of activations, 1 without one; the
            gradients of parameters are unscaled already.
    """

    epoch: int
    step: int
    steps: int
    labels: Tensor
    mean_over: float
    scale: float = 1.0


class Observer(Protocol):
    """An object that the training loop calls at every step, and that may change the weights.

    Its random draws must depend on its seed and the moment alone (`seed_for`), and all its other
    state must be in its state dict, so that a resumed run repeats it bit for bit. Each process has
    its own observer, and all must change the weights alike. Methods that a subclass leaves out do
    nothing.
    """

    @abstractmethod
    def start(self, network: nn.Module, optimizer: optim.Optimizer) -> None:
        """Called once in each process, before any step and before `load_state_dict`."""

    def before_step(self, epoch: int, step: int, images: int) -> None:
        """Called before a step on `images` images; again for the same step if recording fails."""
        return

    def after_backward(self, moment: Moment) -> None:
        """Called once the gradients of the step are computed."""
        return

    def after_step(self, moment: Moment) -> bool:
        """Called once the weights are updated; returns True to end the phase early."""
        return False

    def validating(self) -> AbstractContextManager[None]:
        """Returns a context for an epoch's validation, which must restore what it changes."""
        return nullcontext()

    def finished(self) -> None:
        """Called after the last step; removes whatever `start` put on the network."""
        return

    def state_dict(self) -> dict[str, Any]:
        """Returns the observer's state, made of tensors, numbers, strings, lists and dicts."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        return


@runtime_checkable
class RepeatingObserver(Observer, Protocol):
    """An observer that at most steps does the same work on the same tensors: these are recorded.

    At such steps it must not wait for the device or draw, and its `after_step` returns False. When
    a step is replayed only `before_step` is called, so what that draws must go to tensors that the
    recorded step reads.
    """

    @abstractmethod
    def repeats(self, epoch: int, step: int, steps: int) -> Hashable | None:
        """Returns a key that equal steps share; None for a step that no other is like.

        Called after `before_step`, and for an epoch's validation within `validating`.

        Args:
            epoch: counted from 0.
            step: counted from 0 within the epoch.
            steps: steps per epoch.
        """


class PruningObserver(Observer, Protocol):
    """An observer that prunes, and ends with a plan."""

    def plan(self) -> Plan:
        """Returns the channels left so far, in the numbering of the network in training."""

    def counts(self) -> dict[str, dict[str, int]]:
        """Returns group name -> counts that the report records."""
