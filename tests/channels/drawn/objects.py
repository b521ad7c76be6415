"""Finds tensors in outputs of any type, and in everything that a model refers to."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Iterator
from functools import partial
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from drawn.program import SPACE
from torch import Tensor, nn


def tensors(value: Any) -> Iterator[Tensor]:
    """Yields every tensor in an output of whatever type."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (dict, UserDict)):
        yield from (t for item in value.values() for t in tensors(item))
    elif isinstance(value, (list, tuple)) or hasattr(value, "__next__"):
        yield from (t for item in value for t in tensors(item))
    elif hasattr(value, "__dict__"):
        yield from tensors(vars(value))
    else:
        yield from (
            t for name in getattr(value, "__slots__", ()) for t in tensors(getattr(value, name))
        )


def gap(have: list[Tensor], want: list[Tensor]) -> float:
    """Returns the largest relative difference; infinite where shapes differ or are not finite."""
    if not want or [t.shape for t in have] != [t.shape for t in want]:
        return float("inf")
    gaps = [
        float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp_min(1e-12))
        for a, b in zip(have, want, strict=True)
    ]
    return max(gaps) if np.isfinite(gaps).all() else float("inf")


def everything(net: nn.Module) -> list[Tensor]:
    """Returns every tensor that hangs on the modules of `net`, weights or not."""
    return [item for _, item in _walk(net, "", set()) if isinstance(item, Tensor)]


def portrait(net: nn.Module) -> dict[str, Any]:
    """Returns a comparable description of all that hangs on `net`, by path."""
    return {path: _describe(item) for path, item in _walk(net, "net", set())}


def _describe(item: Any) -> Any:
    if isinstance(item, Tensor):
        numbers = None if item.is_meta else hash(item.detach().contiguous().numpy().tobytes())
        who = id(item) if isinstance(item, nn.Parameter) else type(item)
        return (who, str(item.device), item.dtype, tuple(item.shape), item.requires_grad, numbers)
    if isinstance(item, (int, float, str, bool, type(None), torch.dtype)):
        return item
    return (type(item), id(item)) if isinstance(item, (nn.Module, FunctionType)) else type(item)


def _walk(item: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yields (path, object) for all that the network's own code can reach, each object once."""
    yield path, item
    if id(item) in seen:
        return
    seen.add(id(item))
    for name, value in _parts(item):
        yield from _walk(value, f"{path}.{name}", seen)


def _parts(item: Any) -> list[tuple[str, Any]]:
    """Returns what `item` consists of, by name; nothing for objects of libraries."""
    if isinstance(item, dict):
        return [(str(key), value) for key, value in item.items()]
    if isinstance(item, set):  # a copy may go through it in another order
        return [(str(at), value) for at, value in enumerate(sorted(item, key=str))]
    if isinstance(item, (list, tuple)):
        return [(str(at), value) for at, value in enumerate(item)]
    if isinstance(item, FunctionType):
        cells = zip(item.__code__.co_freevars, item.__closure__ or (), strict=True)
        found = [(name, cell.cell_contents) for name, cell in cells]
        return [*found, ("defaults", item.__defaults__)]
    if isinstance(item, MethodType):
        return [("self", item.__self__)]
    if isinstance(item, partial):
        return [("func", item.func), ("args", item.args), ("keywords", item.keywords)]
    mine = isinstance(item, (nn.Module, SimpleNamespace)) or type(item).__module__ == SPACE
    if not mine or isinstance(item, torch.jit.ScriptModule):
        return []
    return list(vars(item).items())
