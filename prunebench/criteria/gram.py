"""The Gram matrix of a consumer's inputs: what ThiNet's search and its repair look at.

One sample is one scalar of a consumer's output before its bias: with filter f at output position
(i, j) of image n,

    x_c = sum over taps of W[f, c] * input[n, c]      and      y = output - bias = sum_c x_c,

so y says nothing that X does not, and G = X'X (channels by channels) is all that any search or
least-squares fit needs. Channels that live and die together count as one column.

Luo et al., "ThiNet", ICCV 2017, draw images, filters and positions at random (`sampled`). Summing
over every filter and every position (`all`, ours) needs no draws: with P the patches of the input,
G = sum over pairs of taps of (P'P) * (W'W), elementwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from prunebench.errors import PruningError, require, require_choice

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.channels import ChannelGroup, Site
    from prunebench.criteria import Evidence

COLLECT = ("sampled", "all")

#: numbers per block of work: 64 MiB of float64
BLOCK = 1 << 23
#: rows of the largest table that `all` sets up: 0.8 GB of float64, twice
WIDEST = 10_000


@dataclass(frozen=True, kw_only=True)
class GramCollection:
    """Which samples go into the Gram matrices; part of the schema of ThiNet and of its repair.

    Attributes:
        collect: ``sampled`` draws filters and output positions at random, as the paper does;
            ``all`` sums over every filter and position and draws nothing.
        num_samples: training images looked at.
        per_image: draws per image and consumer, at least (sampled).
        rows_per_channel: draws per channel, at least; where `per_image` gives fewer, every image
            gives more. Few rows make least squares fit noise (sampled).
        chunk: images per forward pass; memory, not the result, depends on it.
    """

    collect: str
    num_samples: int
    per_image: int
    rows_per_channel: int
    chunk: int

    def __post_init__(self) -> None:
        """Checks ranges."""
        require_choice("collect", self.collect, COLLECT)
        require(self.num_samples >= 1, f"num_samples must be at least 1, got {self.num_samples}")
        require(self.per_image >= 1, f"per_image must be at least 1, got {self.per_image}")
        require(
            self.rows_per_channel >= 0,
            f"rows_per_channel must not be negative, got {self.rows_per_channel}",
        )
        require(self.chunk >= 1, f"chunk must be at least 1, got {self.chunk}")

    @property
    def images_needed(self) -> int:
        """Number of training images looked at."""
        return self.num_samples

    def grams(
        self, evidence: Evidence, groups: Sequence[ChannelGroup]
    ) -> dict[str, dict[str, Tensor]]:
        """Returns group name -> name of the consumer's weight -> its Gram matrix.

        Every matrix is float64 [group.size, group.size] on the CPU, symmetric. One forward sweep
        serves all groups; draws depend on the evidence's seed and the group's name alone.

        Raises:
            PruningError: a consumer is no `Conv2d` or `Linear` that is called, its inputs are not
                finite, or its table is too large for ``all``.
        """
        import torch

        from prunebench.reproducibility import cuda_math

        images = evidence.images[: self.num_samples]
        modules = dict(evidence.network.named_modules())
        seen = _Place(len(images))
        made: dict[str, dict[str, _Sampled | _Entries]] = {}
        for group in groups:
            made[group.name] = {}
            for site in group.consumers:
                reader = _Reader(modules[site.module], site, group)
                made[group.name][site.name] = (
                    _Entries(reader)
                    if self.collect == "all"
                    else _Sampled(reader, self._draws(group, len(images)), evidence.seed)
                )
        tables = [table for of_group in made.values() for table in of_group.values()]
        with torch.no_grad(), cuda_math(exact=True), _listening(tables, seen):
            for some in torch.split(images, self.chunk):
                seen.next_batch(len(some))
                evidence.network(some)
        return {
            name: {weight: table.result() for weight, table in of_group.items()}
            for name, of_group in made.items()
        }

    def _draws(self, group: ChannelGroup, images: int) -> int:
        """Returns how many samples every image gives."""
        return max(self.per_image, -(-self.rows_per_channel * group.size // max(images, 1)))


class _Place:
    """Where in the images the sweep is.

    Attributes:
        total: images of the whole sweep.
        start: of the batch under way.
        size: images in it.
    """

    def __init__(self, total: int) -> None:
        """Starts before the first image."""
        self.total, self.start, self.size = total, 0, 0

    def next_batch(self, size: int) -> None:
        """Moves on to a batch of `size` images."""
        self.start, self.size = self.start + self.size, size


class _Reader:
    """One consumer of one group, as a convolution on padded maps.

    Attributes:
        name: of its weight.
        group: name of the group.
        size: classes of the group.
        module: the convolution or linear layer.
        classes: int64, the class of each column of the weight that belongs to the group.
        columns: int64, these columns.
    """

    def __init__(self, module: nn.Module, site: Site, group: ChannelGroup) -> None:
        """Checks that the consumer can be measured.

        Raises:
            PruningError: it cannot.
        """
        from torch import nn

        if not isinstance(module, nn.Conv2d | nn.Linear) or site.parameter != "weight":
            raise PruningError(
                f"{site.name}, which reads the channels of {group.name}, is not the weight of a "
                "Conv2d or Linear, and ThiNet can measure no other consumer; leave the group "
                f"alone with budget.exclude=[{group.name}]"
            )
        self.name, self.group, self.size = site.name, group.name, group.size
        self.module: nn.Conv2d | nn.Linear = module
        self.columns = (site.classes >= 0).nonzero()[:, 0].to(module.weight.device)
        self.classes = site.classes.to(module.weight.device)[self.columns]
        linear = isinstance(module, nn.Linear)
        self.stride: Any = (1, 1) if linear else module.stride
        self.dilation: Any = (1, 1) if linear else module.dilation
        self.groups: int = 1 if isinstance(module, nn.Linear) else module.groups

    @property
    def weight(self) -> Tensor:
        """Weight as [filters, columns, kh, kw]."""
        weight: Tensor = self.module.weight
        return weight if weight.dim() == 4 else weight[:, :, None, None]

    def padded(self, inputs: Tensor) -> Tensor:
        """Returns what the kernel slides over, [N, C, H, W]; tokens of a linear layer are rows."""
        from torch import nn
        from torch.nn import functional

        if isinstance(self.module, nn.Linear):
            return inputs.movedim(-1, 1).reshape(len(inputs), inputs.shape[-1], -1, 1)
        mode = self.module.padding_mode
        widths = self.module._reversed_padding_repeated_twice
        return functional.pad(inputs, widths, "constant" if mode == "zeros" else mode)

    def positions(self, padded: Tensor) -> tuple[int, int]:
        """Returns the height and width of the output."""
        rows, columns = (
            (extent - dilation * (kernel - 1) - 1) // stride + 1
            for extent, dilation, kernel, stride in zip(
                padded.shape[2:], self.dilation, self.weight.shape[2:], self.stride, strict=True
            )
        )
        return rows, columns

    def checked(self, gram: Tensor | None) -> Tensor:
        """Returns `gram` symmetric and on the CPU.

        Raises:
            PruningError: nothing was collected, or it is not finite.
        """
        if gram is None:
            raise PruningError(
                f"{self.name}, which reads the channels of {self.group}, is used without its "
                "module being called, so ThiNet cannot see its inputs; leave the group alone with "
                f"budget.exclude=[{self.group}]"
            )
        if not bool(gram.isfinite().all()):
            raise PruningError(f"the inputs of {self.name} are not finite; has training diverged?")
        return ((gram + gram.T) / 2).cpu()


class _Sampled:
    """Gram matrix over drawn (image, filter, row, column)."""

    def __init__(self, reader: _Reader, draws: int, seed: int) -> None:
        """Takes `draws` samples per image."""
        self.reader, self.draws, self.seed = reader, draws, seed
        self.gram: Tensor | None = None

    def add(self, inputs: Tensor, place: _Place, call: int) -> None:
        """Takes in one batch of inputs of the consumer's `call`-th call in a forward."""
        import torch

        padded = self.reader.padded(inputs)
        height, width = self.reader.positions(padded)
        filters = len(self.reader.weight)
        # a network may fold frames or tiles into the batch
        each = len(inputs) // max(place.size, 1)
        drawn = self._uniform(place.total * each, call)[place.start * each :][: len(inputs)]
        limits = torch.tensor([filters, height, width])
        where = (drawn * limits).long().reshape(-1, 3).to(inputs.device)
        image = torch.arange(len(inputs), device=inputs.device).repeat_interleave(self.draws)
        weight = self.reader.weight
        per_row = padded.shape[1] * weight.shape[2] * weight.shape[3]
        step = max(1, BLOCK // per_row)
        for begin in range(0, len(image), step):
            part = slice(begin, begin + step)
            rows = contributions(self.reader, padded, image[part], where[part])
            gram = rows.T @ rows
            self.gram = gram if self.gram is None else self.gram + gram

    def _uniform(self, images: int, call: int) -> Tensor:
        """Returns the draws of all images, float64 [images, draws, 3] in [0, 1)."""
        import torch

        from prunebench.reproducibility import generator

        source = generator(self.seed, "thinet", self.reader.group, self.reader.name, call)
        return torch.rand(images, self.draws, 3, generator=source, dtype=torch.float64)

    def result(self) -> Tensor:
        """Returns G, float64 [size, size] on the CPU."""
        return self.reader.checked(self.gram)


def contributions(reader: _Reader, padded: Tensor, image: Tensor, where: Tensor) -> Tensor:
    """Returns X: what each class adds to the sampled outputs, float64 [samples, size].

    Args:
        reader: the consumer.
        padded: its padded inputs [N, C, H, W].
        image: int64 [samples].
        where: int64 [samples, 3]: filter, row and column of the output.
    """
    import torch

    weight = reader.weight
    kernel, device = weight.shape[2:], padded.device
    filters, *corner = where.unbind(1)
    rows, columns = (
        at[:, None] * stride + torch.arange(taps, device=device) * dilation
        for at, stride, taps, dilation in zip(
            corner, reader.stride, kernel, reader.dilation, strict=True
        )
    )
    patches = padded.permute(0, 2, 3, 1)[
        image[:, None, None], rows[:, :, None], columns[:, None, :]
    ]
    if reader.groups > 1:
        own = filters // (len(weight) // reader.groups)
        patches = patches.unflatten(3, (reader.groups, -1))[
            torch.arange(len(own), device=device), :, :, own
        ]
    kernels = weight.permute(0, 2, 3, 1)[filters]
    by_column = (patches.double() * kernels.double()).sum((1, 2))[:, reader.columns]
    by_class = torch.zeros(len(image), reader.size, dtype=torch.float64, device=device)
    return by_class.index_add_(1, reader.classes, by_column)


class _Entries:
    """Gram matrix over every filter and position."""

    def __init__(self, reader: _Reader) -> None:
        """Checks that the table of patches can be set up.

        Raises:
            PruningError: it would be too large.
        """
        self.reader = reader
        self.taps = reader.weight[0, 0].numel()
        self.wide = len(reader.columns) * self.taps
        if self.wide > WIDEST:
            raise PruningError(
                f"collect=all would set up a table of {self.wide} x {self.wide} for {reader.name}, "
                f"more than {WIDEST} x {WIDEST}; use collect=sampled"
            )
        self.patches: Tensor | None = None

    def add(self, inputs: Tensor, place: _Place, call: int) -> None:
        """Takes in one batch of inputs of the consumer."""
        import torch
        from torch.nn import functional

        reader = self.reader
        padded = reader.padded(inputs)
        kernel = reader.weight.shape[2:]
        height, width = reader.positions(padded)
        step = max(1, BLOCK // max(1, padded.shape[1] * self.taps * height * width))
        for some in torch.split(padded, step):
            unfolded = functional.unfold(
                some, kernel, dilation=reader.dilation, stride=reader.stride
            )
            by_column = unfolded.unflatten(1, (reader.groups, -1, self.taps))
            chosen = by_column[:, :, reader.columns].double()
            # [groups, columns * taps, images * positions]
            table = chosen.permute(1, 2, 3, 0, 4).reshape(reader.groups, self.wide, -1)
            square = table @ table.transpose(1, 2)
            self.patches = square if self.patches is None else self.patches + square

    def result(self) -> Tensor:
        """Returns G, float64 [size, size] on the CPU."""
        import torch

        if self.patches is None:
            return self.reader.checked(None)
        weight = self.reader.weight.detach()[:, self.reader.columns].double()
        kernels = weight.reshape(self.reader.groups, -1, self.wide)
        table = (self.patches * (kernels.transpose(1, 2) @ kernels)).sum(0)
        classes = self.reader.classes.repeat_interleave(self.taps)
        rows = torch.zeros(self.reader.size, self.wide, dtype=torch.float64, device=table.device)
        rows.index_add_(0, classes, table)
        gram = torch.zeros(self.reader.size, self.reader.size, dtype=rows.dtype, device=rows.device)
        return self.reader.checked(gram.index_add_(1, classes, rows))


@contextmanager
def _listening(tables: Sequence[_Sampled | _Entries], place: _Place) -> Iterator[None]:
    """Feeds the inputs of every consumer to its tables while a network runs."""
    calls: dict[int, tuple[int, int]] = {}

    def hear(table: _Sampled | _Entries, module: nn.Module, inputs: Any, named: Mapping[str, Any]):  # type: ignore[no-untyped-def]
        begun, call = calls.get(id(table), (-1, 0))
        call = call + 1 if begun == place.start else 0
        calls[id(table)] = place.start, call
        table.add(inputs[0] if inputs else named["input"], place, call)

    handles = [
        table.reader.module.register_forward_pre_hook(partial(hear, table), with_kwargs=True)
        for table in tables
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
