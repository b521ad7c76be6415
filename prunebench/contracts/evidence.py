"""Evidence: all that a criterion may use: a network, its groups, and training images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from prunebench.contracts.task import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.channels import ChannelGroup, ChannelMap


class Rows(Protocol):
    """Normalised float32 images: a tensor [n, C, H, W], or an object that reads slices of it."""

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, rows: slice, /) -> Tensor:
        """Returns a slice of the images, [k, C, H, W]."""


@runtime_checkable
class Sampled(Rows, Protocol):
    """Training images of a data set, unaugmented."""

    def augmented(self, seed: int) -> Rows:
        """Returns the images augmented as in training, drawn with `seed`."""


@dataclass(frozen=True)
class Evidence:
    """All that a criterion may use.

    Attributes:
        network: the network as pruned so far, in eval mode; a criterion must leave it unchanged.
        cmap: its channel map.
        groups: the groups to rank (a subset of ``cmap.groups``).
        images: normalised training images (`Rows`), unaugmented, in a seeded random order, on the
            network's device: ``images[:32]`` is a float32 tensor [32, C, H, W]. Never validation or
            test images. A user's own network may take a tuple or dict of such; `batches` slices any
            of them, a part at a time.
        labels: int64 [n]; for a user's own task, whatever its loss takes.
        seed: seed for criteria that draw at random.
        task: how the network is run on images, and its loss.
        earlier: group name -> scores of its remaining classes in the round before.
        measured: cache of measurements that the repair of the same step may reuse; a key must name
            all that its value depends on, apart from the evidence.
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
        """The same images augmented as in training; a user's own images are left as given."""
        return self.images.augmented(self.seed) if isinstance(self.images, Sampled) else self.images

    def batches(self, count: int, size: int) -> Iterator[tuple[Any, Any]]:
        """Yields inputs and targets of the first `count` images, `size` at a time."""
        count = min(count, self.size)
        for start in range(0, count, size):
            stop = min(start + size, count)
            yield rows(self.images, start, stop), rows(self.labels, start, stop)


def rows_in(values: Any) -> int:
    """Returns the number of images (or targets) in `values`, of a kind that `rows` takes."""
    if isinstance(values, Mapping):
        values = tuple(values.values())
    return rows_in(values[0]) if isinstance(values, tuple) else len(values)


def rows(values: Any, start: int, stop: int) -> Any:
    """Returns images (or targets) `start` to `stop` - 1 of `values`.

    Args:
        values: a tensor or list with an entry per image; a tuple or dict of such; or None.
        start: index of the first.
        stop: index behind the last.
    """
    if isinstance(values, Mapping):
        return {key: rows(value, start, stop) for key, value in values.items()}
    if isinstance(values, tuple):
        return tuple(rows(value, start, stop) for value in values)
    return None if values is None else values[start:stop]
