"""Puts labels on tensors, reads them and reshapes them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def labels_of(t: Tensor) -> Tensor:
    """Returns the labels of `t`; zeros (never cut) where it has none."""
    found: Tensor | None = getattr(t, "_channel_labels", None)
    return found if found is not None else torch.zeros([1] * t.dim(), dtype=torch.int64)


class Row(NamedTuple):
    """Labels as a vector, split into ids and live bits.

    Attributes:
        ids, live: int64 [n].
        plain: whether no label is 0 and none is live.
    """

    ids: Tensor
    live: Tensor
    plain: bool

    def of(self, size: int) -> Row:
        """Returns a row of `size`; a single label is repeated."""
        if self.ids.numel() == size:
            return self
        return Row(self.ids.expand(size), self.live.expand(size), self.plain)


def row_of(labels: Tensor) -> Row:
    """Returns all of `labels` as a row; cached, since many tensors wear the same labels."""
    found: Row | None = getattr(labels, "_row", None)
    if found is None:
        ids, live = (labels >> 1).reshape(-1), (labels & 1).reshape(-1)
        plain = bool((ids > 0).all()) and not bool(live.any())
        found = labels._row = Row(ids, live, plain)  # type: ignore[attr-defined]
    return found


def dead(ids: Tensor, dim: int, dims: int, *, plain: bool = True) -> Tensor:
    """Returns the labels of channels that are not live, along one dimension.

    Args:
        ids: of the channels, int64 [n].
        dim: the dimension along which they lie.
        dims: number of dimensions.
        plain: whether no id is known to be 0.
    """
    labels = along(ids * 2, dim, dims)
    labels._row = Row(ids, torch.zeros_like(ids), plain)  # type: ignore[attr-defined]
    return labels


def is_labelled(t: Tensor) -> bool:
    """Whether `t` was given labels."""
    return hasattr(t, "_channel_labels")


def put(t: Tensor, labels: Tensor) -> Tensor:
    """Gives `t` its labels and returns it."""
    t._channel_labels = labels  # type: ignore[attr-defined]
    return t


def unexpanded(t: Tensor) -> Tensor:
    """Returns `t` with size 1 on every dimension along which it was expanded."""
    for dim in range(t.dim()):
        if t.size(dim) > 1 and t.stride(dim) == 0:
            t = t.narrow(dim, 0, 1)
    return t


def shrink(labels: Tensor) -> Tensor:
    """Returns `labels` with size 1 on every dimension along which they do not change."""
    for dim in reversed(range(labels.dim())):  # pixels first, which are many and all alike
        if labels.size(dim) > 1 and _alike(labels, dim):
            labels = labels.narrow(dim, 0, 1)
    return labels.contiguous()


def _alike(labels: Tensor, dim: int) -> bool:
    """Whether `labels` are the same all along `dim`."""
    if labels.stride(dim) == 0:
        return True
    first = labels.narrow(dim, 0, 1)
    return torch.equal(first, labels.narrow(dim, 1, 1)) and bool((first == labels).all())


def along(vector: Tensor, dim: int, dims: int) -> Tensor:
    """Returns `vector` [n] as a tensor of `dims` dimensions, of size n on `dim` and 1 elsewhere."""
    shape = [1] * dims
    shape[dim] = -1
    return vector.view(shape)
