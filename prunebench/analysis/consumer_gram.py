"""Gram matrices of one consumer, of what each channel of a group adds to its output.

One sample is one scalar of the layer's output before its bias: with filter f at output position
(i, j) of image n,

    x_c = sum over taps of W[f, c] * input[n, c]      and      y = output - bias = sum_c x_c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunebench.errors import PruningError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.channels import ChannelGroup, Site

#: numbers per block of work: 64 MiB of float64
BLOCK = 1 << 23
#: rows of the largest table that `Entries` makes: 0.8 GB of float64, twice
WIDEST = 10_000


def squared(rows: Tensor) -> Tensor:
    """Returns X'X [C, C] of samples X [m, C].

    On a CPU it uses NumPy, whose BLAS call uses the symmetry: half the work of torch's.
    """
    import numpy as np
    import torch

    if rows.device.type != "cpu":
        return rows.T @ rows
    table = rows.detach().numpy()
    with np.errstate(invalid="ignore", over="ignore"):  # `Reader.checked` checks for these
        return torch.from_numpy(table.T @ table)


class Sweep:
    """The position of a pass over all images.

    Attributes:
        total: number of images of the whole pass.
        start: first image of the present batch.
        size: number of images in it.
    """

    def __init__(self, total: int) -> None:
        """Starts before the first image."""
        self.total, self.start, self.size = total, 0, 0

    def next_batch(self, size: int) -> None:
        """Moves on to a batch of `size` images."""
        self.start, self.size = self.start + self.size, size


class Reader:
    """One consumer of one group, as a convolution on padded maps.

    Attributes:
        name: name of its weight.
        group: name of the group.
        size: number of classes of the group.
        module: the convolution or linear layer.
        classes: int64; the class of each column of the weight that belongs to the group.
        columns: int64; these columns.
    """

    def __init__(self, module: nn.Module, site: Site, group: ChannelGroup) -> None:
        """Checks that the consumer can be measured.

        Raises:
            PruningError: it is no weight of a Conv2d or Linear.
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
        self.columns = site.positions.to(module.weight.device)
        self.classes = site.classes.to(module.weight.device)[self.columns]
        linear = isinstance(module, nn.Linear)
        self.stride: Any = (1, 1) if linear else module.stride
        self.dilation: Any = (1, 1) if linear else module.dilation
        self.groups: int = 1 if isinstance(module, nn.Linear) else module.groups

    @property
    def weight(self) -> Tensor:
        """The weight as [filters, columns, kh, kw]."""
        weight: Tensor = self.module.weight
        return weight if weight.dim() == 4 else weight[:, :, None, None]

    def padded(self, inputs: Tensor) -> Tensor:
        """Returns the padded input [N, C, H, W]; for a linear layer, H counts tokens."""
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
        """Returns `gram` made symmetric, on the CPU.

        Raises:
            PruningError: nothing was collected, or numbers are not finite.
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


class Sampled:
    """The Gram matrix over randomly drawn outputs (image, filter, row, column)."""

    def __init__(self, reader: Reader, draws: int, seed: int) -> None:
        """Takes `draws` samples per image."""
        self.reader, self.draws, self.seed = reader, draws, seed
        self.gram: Tensor | None = None

    def add(self, inputs: Tensor, sweep: Sweep, call: int) -> None:
        """Adds a batch of inputs from the consumer's `call`-th call in a forward."""
        import torch

        padded = self.reader.padded(inputs)
        height, width = self.reader.positions(padded)
        filters = len(self.reader.weight)
        # more than 1 if the network folds frames or tiles into the batch
        each = len(inputs) // max(sweep.size, 1)
        drawn = self._uniform(sweep.total * each, call)[sweep.start * each :][: len(inputs)]
        limits = torch.tensor([filters, height, width])
        where = (drawn * limits).long().reshape(-1, 3).to(inputs.device)
        image = torch.arange(len(inputs), device=inputs.device).repeat_interleave(self.draws)
        weight = self.reader.weight
        per_row = padded.shape[1] * weight.shape[2] * weight.shape[3]
        step = max(1, BLOCK // per_row)
        for begin in range(0, len(image), step):
            part = slice(begin, begin + step)
            rows = contributions(self.reader, padded, image[part], where[part])
            gram = squared(rows)
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


def contributions(reader: Reader, padded: Tensor, image: Tensor, where: Tensor) -> Tensor:
    """Returns what each class adds to the sampled outputs: X, float64 [samples, size].

    Args:
        reader: the consumer.
        padded: its padded inputs [N, C, H, W].
        image: int64 [samples]; image of each sample.
        where: int64 [samples, 3]; filter, row and column of each sampled output.
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
        by_group = patches.reshape(*patches.shape[:3], reader.groups, -1)
        patches = by_group[torch.arange(len(own), device=device), :, :, own]
    kernels = weight.permute(0, 2, 3, 1)[filters]
    by_column = (patches.double() * kernels.double()).sum((1, 2))[:, reader.columns]
    by_class = torch.zeros(len(image), reader.size, dtype=torch.float64, device=device)
    return by_class.index_add_(1, reader.classes, by_column)


class Entries:
    """The Gram matrix over all filters and positions."""

    def __init__(self, reader: Reader) -> None:
        """Checks that the table of patches is not too large.

        Raises:
            PruningError: it would have more than `WIDEST` rows.
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

    def add(self, inputs: Tensor, sweep: Sweep, call: int) -> None:
        """Adds a batch of inputs of the consumer."""
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
            by_column = unfolded.reshape(len(some), reader.groups, -1, self.taps, height * width)
            chosen = by_column[:, :, reader.columns].double()
            # [groups, columns * taps, images * positions]
            table = chosen.permute(1, 2, 3, 0, 4).reshape(reader.groups, self.wide, -1)
            square = torch.stack([squared(columns.T) for columns in table])
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
