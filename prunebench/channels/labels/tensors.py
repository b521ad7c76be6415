"""Labels on tensors, and tensors inside nested values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def labels_of(t: Tensor) -> Tensor:
    """Returns the labels of `t`; zeros (never cut) where it has none."""
    found: Tensor | None = getattr(t, "_channel_labels", None)
    return found if found is not None else torch.zeros([1] * t.dim(), dtype=torch.int64)


def is_labelled(t: Tensor) -> bool:
    """Whether `t` was given labels."""
    return hasattr(t, "_channel_labels")


def put(t: Tensor, labels: Tensor) -> Tensor:
    """Gives `t` its labels and returns it."""
    t._channel_labels = labels  # type: ignore[attr-defined]
    return t


def shrink(labels: Tensor) -> Tensor:
    """Returns `labels` with size 1 on every dimension along which they do not change."""
    for dim, size in enumerate(labels.shape):
        if size > 1 and (
            labels.stride(dim) == 0 or bool((labels.narrow(dim, 0, 1) == labels).all())
        ):
            labels = labels.narrow(dim, 0, 1)
    return labels.contiguous()


def along(vector: Tensor, dim: int, dims: int) -> Tensor:
    """Returns `vector` [n] as a tensor of `dims` dimensions, of size n on `dim` and 1 elsewhere."""
    return vector.view([-1 if d == dim else 1 for d in range(dims)])


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yields every tensor in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)


def map_tensors(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """Returns `value` with every tensor in nested tuples, lists and dicts changed."""
    if isinstance(value, Tensor):
        return change(value)
    if type(value) is dict:
        return {key: map_tensors(item, change) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        items = [map_tensors(item, change) for item in value]
        if type(value) is list:
            return items
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value
