"""What a criterion may look at: a network, its groups, and training images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from prunebench.contracts.task import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.channels import ChannelGroup, ChannelMap


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
