"""What criteria, budgets, repairs, schedules and training hand each other; read this first.

A criterion gets `Evidence` and returns a `GroupRank` for each group; a budget turns ranks into a
plan, with the `Dense` network's counts as its yardstick. Where channels go in the course of a
training, a criterion or schedule gets an `Assignment` with the budget's `Limit`s and returns a
`PruningObserver`, which sees every `Moment` of the training.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from prunebench.tasks import Task as Task

if TYPE_CHECKING:
    from torch import Tensor, nn, optim

    from prunebench.channels import ChannelGroup, ChannelMap, Plan


class Rows(Protocol):
    """Normalised images, float32: a tensor [n, C, H, W], or what reads them as it is sliced."""

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, rows: slice, /) -> Tensor:
        """Returns some of the images, [k, C, H, W]."""


@runtime_checkable
class Sampled(Rows, Protocol):
    """Training images of a data set, unaugmented."""

    def augmented(self, seed: int) -> Rows:
        """Returns them as a training shows them, with what `seed` draws."""


@dataclass(frozen=True)
class Evidence:
    """What a criterion may look at.

    Attributes:
        network: the network as pruned so far, in eval mode; a criterion must leave it unchanged.
        cmap: its channel map.
        groups: the groups to rank (a subset of ``cmap.groups``).
        images: normalised training images, unaugmented, in a seeded random order, on the network's
            device (`Rows`): ``images[:32]`` is a float32 tensor [32, C, H, W]. Never validation or
            test images. What a user's own network takes may be a tuple or dict of such (`batches`
            serves them all, and no more of them than memory holds).
        labels: int64 [n]; of a user's own task, whatever its loss takes.
        seed: for criteria that draw at random.
        task: how the network is run on images, and its loss.
        earlier: group name -> scores of its classes in the round before, of those that are left.
        measured: what a criterion measured and the repair of the same step need not measure again;
            whoever puts something in says in its key all that it depends on, the evidence aside.
    """

    network: nn.Module
    cmap: ChannelMap
    groups: tuple[ChannelGroup, ...]
    images: Any
    labels: Any
    seed: int
    task: Task = Task()
    earlier: Mapping[str, Tensor] = field(default_factory=dict)
    measured: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def size(self) -> int:
        """Number of images."""
        return rows_in(self.images)

    @property
    def augmented(self) -> Any:
        """The same images as a training shows them; a user's own are as they were given."""
        return self.images.augmented(self.seed) if isinstance(self.images, Sampled) else self.images

    def batches(self, count: int, size: int) -> Iterator[tuple[Any, Any]]:
        """Yields inputs and targets of the first `count` images, `size` at a time."""
        count = min(count, self.size)
        for start in range(0, count, size):
            stop = min(start + size, count)
            yield rows(self.images, start, stop), rows(self.labels, start, stop)


def rows_in(values: Any) -> int:
    """Returns how many images (or targets) `values` holds; see `rows`."""
    if isinstance(values, Mapping):
        values = tuple(values.values())
    return rows_in(values[0]) if isinstance(values, tuple) else len(values)


def rows(values: Any, start: int, stop: int) -> Any:
    """Returns some of the images (or targets) of `values`.

    Args:
        values: a tensor or list with an entry for each image; a tuple or dict of such; or None.
        start: the first.
        stop: behind the last.
    """
    if isinstance(values, Mapping):
        return {key: rows(value, start, stop) for key, value in values.items()}
    if isinstance(values, tuple):
        return tuple(rows(value, start, stop) for value in values)
    return None if values is None else values[start:stop]


@dataclass(frozen=True)
class Degrees:
    """The decisions that a criterion would make for one group, from mild to strict.

    Attributes:
        names: of level and bar, as the criterion's options call them.
        most: level above which nothing changes.
        decide: takes a level from 0, where all stay, and a bar in [0, 1]; a higher level spares
            fewer classes, and a higher bar more, but for single steps. Returns those kept,
            ascending.
    """

    names: tuple[str, str]
    most: int
    decide: Callable[[int, float], tuple[int, ...]]


@dataclass(frozen=True)
class GroupRank:
    """How the classes of one group compare.

    Attributes:
        scores: float64 [group.size] on the CPU; higher = keep; finite.
        kept: the criterion's own decision, ascending class indices; None if it makes none.
        counts: what the criterion counted on the way, for the record.
        alive: the classes that it knows to matter, however low they score; None if it cannot tell.
        degrees: its decisions at other settings; None if it has no such family.
    """

    scores: Tensor
    kept: tuple[int, ...] | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    alive: tuple[int, ...] | None = None
    degrees: Degrees | None = None


@dataclass(frozen=True)
class Dense:
    """The unpruned network's counts, the yardstick of every keep ratio.

    Attributes:
        sizes: group name -> number of classes.
        macs, params: of the whole dense network.
    """

    sizes: Mapping[str, int]
    macs: int
    params: int


@dataclass(frozen=True)
class Limit:
    """A count that the slimmed network may reach and not exceed.

    Attributes:
        unit: what is counted, for messages.
        target: the limit.
        amount: the count of the network slimmed by a plan.
    """

    unit: str
    target: int
    amount: Callable[[Plan], int]


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
    """

    epoch: int
    step: int
    steps: int
    labels: Tensor
    mean_over: float


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
