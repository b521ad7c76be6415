"""Value numbers: which computation every element of a tensor came from.

A label names a channel, and many tensors hold the same channel: `x`, and what a pool makes of `x`.
Beside its labels a tensor therefore wears the number of the computation that made it. Data that is
moved takes the number along, so elements with the same label and number come from one computation,
where their order tells them apart. Elements that are moved out of this order get new numbers.

Almost every tensor has one number for all its elements, a plain int; only `cat` and the like lead
to tensors of numbers, with size 1 on dimensions that do not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor

from prunebench.channels.labels.tensors import put, shrink, unexpanded

Values: TypeAlias = int | Tensor
Either = TypeVar("Either", int, Tensor)

PRIME = (1 << 31) - 1
SHIFT = 32  # labels lie below, value numbers above


def values_of(t: Tensor) -> Values:
    """Returns the value number of `t`, or one for each of its elements."""
    found: Values = getattr(t, "_channel_values", 0)
    return found


def put_values(t: Tensor, values: Values) -> Tensor:
    """Gives `t` its value numbers and returns it."""
    if isinstance(values, Tensor) and values.numel() == 1:
        values = int(values)
    t._channel_values = values  # type: ignore[attr-defined]
    return t


def mix(values: Either, salt: Either | int) -> Either:
    """Returns the number of a result computed from `values`; `salt` stands for the computation."""
    return (values * 1000003 + salt * 7919 + 1) % PRIME


def packed(labels: Tensor, values: Values) -> Tensor:
    """Returns labels and value numbers in one tensor, broadcast against each other."""
    return labels + (values << SHIFT)


def ranks(row: Tensor) -> Tensor:
    """Returns for each element of `row` [n] how many like it come before it."""
    order = torch.argsort(row, stable=True)
    ordered = row[order]
    at = torch.arange(len(row))
    starts = torch.where(ordered != ordered.roll(1), at, 0)
    rank = torch.empty_like(at)
    rank[order] = at - torch.cummax(starts, 0).values
    return rank


def standing(shape: Sequence[int], both: Tensor) -> Tensor:
    """Returns for each element of a tensor that wears `both` how many like it come before it."""
    row = both.reshape(-1)
    ascending = bool((row[1:] > row[:-1]).all())  # mostly true, and faster than `unique`
    if not ascending and len(torch.unique(row)) < len(row):
        return ranks(both.expand(*shape).reshape(-1)).view(*shape)
    lie = [1 if both.size(d) > 1 else size for d, size in enumerate(shape)]
    return torch.arange(math.prod(lie)).view(lie).expand(*shape)


def put_moved(t: Tensor, both: Tensor, was: Tensor) -> None:
    """Gives `t` labels and value numbers that were moved along with its data.

    Args:
        t: the result.
        both: labels and numbers, packed in one tensor of its shape; with size 1 on last dimensions
            that were not touched.
        was: `standing` of the source, moved along. Where it differs from that of the result, the
            order has changed, and so does the number.
    """
    lean = unexpanded(both)
    labels = shrink(lean & ((1 << SHIFT) - 1))
    values = shrink(lean >> SHIFT)
    now = standing(both.shape, packed(labels, values))
    for d, size in enumerate(both.shape):
        if size > 1 and now.stride(d) == was.stride(d) == 0:
            now, was = now.narrow(d, 0, 1), was.narrow(d, 0, 1)
    put(t, labels)
    if torch.equal(now, was):
        put_values(t, values)
        return
    others = [d for d, size in enumerate(labels.shape) if size == 1]
    weights = torch.arange(math.prod(was.size(d) for d in others)) * 2654435761 % PRIME + 1
    weights = weights.view([was.size(d) if d in others else 1 for d in range(t.dim())])
    salt = (was * weights).sum(others, keepdim=True) % PRIME if others else was
    still = (now == was).amin(others, keepdim=True) if others else now == was
    put_values(t, shrink(torch.where(still, values, mix(values, salt))))
