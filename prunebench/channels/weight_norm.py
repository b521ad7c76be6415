"""Weight norm: weights computed from a direction v and lengths g, w = g v / |v|."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class WeightNorm:
    """How a weight is computed from a direction, by either ``weight_norm`` of torch.

    Attributes:
        lengths: full name of the parameter that holds them.
        dim: the dimension with a length for each of its indices; -1 where one serves all.
    """

    lengths: str
    dim: int

    def weight(self, direction: Tensor, lengths: Tensor) -> Tensor:
        """Returns the weight that the layer computes with."""
        weight: Tensor = torch._weight_norm(direction, lengths, self.dim)
        return weight

    def lengths_of(self, weight: Tensor) -> Tensor:
        """Returns the length of each part of `weight` that has one of its own."""
        lengths: Tensor = torch.norm_except_dim(weight, 2, self.dim)
        return lengths

    def set(self, direction: Tensor, lengths: Tensor, new: Tensor) -> None:
        """Sets the lengths to `new`, in place; directions of length 0 become 1, against 0 / 0."""
        lengths.copy_(new)
        direction.masked_fill_(self.lengths_of(direction) == 0, 1)
