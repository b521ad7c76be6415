"""A channel selection whose index surgery can rewrite."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


class GatherChannels(nn.Module):
    """Picks channels by index; index -1 gives a channel of zeros.

    Networks that move channels by a fixed rule (zero-padded shortcuts, channel shuffles) write the
    rule as one of these, so that surgery only has to rewrite a buffer. Surgery also inserts them
    where the code of a network assumes channel positions that no longer hold.

    Attributes:
        index: int64 buffer [out]; the input channel of each output channel, or -1.
        dim: the dimension that is picked from.
    """

    def __init__(self, index: Tensor, *, dim: int = 1) -> None:
        """Keeps a copy of `index`."""
        super().__init__()
        self.dim = dim
        self.register_buffer("index", index.detach().clone().to(torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Returns `x` with size ``len(index)`` on `dim`."""
        index = cast(Tensor, self.index)
        picked = x.index_select(self.dim, index.clamp(min=0))
        shape = [1] * x.dim()
        shape[self.dim] = -1
        # where, not a product: a missing channel stays zero even if channel 0 holds inf or nan
        return torch.where((index >= 0).view(shape), picked, picked.new_zeros(()))

    def extra_repr(self) -> str:
        """Says how many channels come out, and of which dimension."""
        index = cast(Tensor, self.index)
        return f"out={len(index)}, dim={self.dim}"
