"""Restores what a forward changes in a network and around it."""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import is_
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, ModuleType
from typing import Any
from weakref import ref

import numpy as np
import torch
from torch import fx, nn

#: classes of values that cannot be changed, or are no part of a network's state
LEFT_ALONE = {
    str, bytes, int, float, bool, complex, type(None), type, torch.dtype, torch.device, torch.Size,
    ModuleType, BuiltinFunctionType, np.ndarray, fx.Graph,
}  # fmt: skip
CONTAINERS = (dict, list, set, deque)
#: classes of containers of which a network holds many empty ones
PLAIN = {dict, OrderedDict, list, set}
#: classes whose instances are searched by their attributes alone
TENSORS = {nn.Parameter, torch.Tensor}


@contextmanager
def untouched(network: nn.Module) -> Iterator[None]:
    """Restores, at the end of the block, whatever forwards of `network` replaced in it.

    That is every attribute, parameter, buffer and container of its modules and of the objects that
    these hold: caches, counters, what hooks collect, also through closures, weak references and
    the globals that such functions name. The random number generators are restored, too. Numbers
    that are changed in place inside a tensor stay changed; tensors without data have none.
    """
    draws = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    saved, empty = _saved(network)
    try:
        yield
    finally:
        for held, before in saved:
            _put_back(held, before)
        for held in empty:
            if held:
                held.clear()
        torch.set_rng_state(draws[0])
        random.setstate(draws[1])
        np.random.set_state(draws[2])  # noqa: NPY002


def _saved(network: nn.Module) -> tuple[list[tuple[Any, Any]], list[Any]]:
    """Returns every container that `network` holds, directly or not, as two lists.

    The first has those that hold something, each with a copy of its contents; the second the
    empty ones. Nine in ten are empty: places for hooks.
    """
    saved: list[tuple[Any, Any]] = []
    empty: list[Any] = []
    todo: list[Any] = [network]
    seen: dict[int, Any] = {}
    while todo:
        value = todo.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        kind = type(value)
        if kind is dict:
            parts: Iterable[Any] = value.values()
            saved.append((value, value.copy()))
        else:
            parts = inside(value)
            if isinstance(value, CONTAINERS):
                saved.append((value, dict(value) if isinstance(value, dict) else list(value)))
            elif kind is CellType:
                saved.append((value, parts))
        for part in parts:
            kind = type(part)
            if kind in LEFT_ALONE:
                continue
            if kind in TENSORS:
                part, kind = part.__dict__, dict
            if kind in PLAIN and not part:
                empty.append(part)
            else:
                todo.append(part)
    return saved, empty


def inside(value: Any) -> Iterable[Any]:
    """Returns what `value` directly holds or refers to."""
    if isinstance(value, dict):
        return list(value.values()) if value else ()
    if isinstance(value, nn.Module):
        return (vars(value),)
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return list(value)
    if isinstance(value, CellType):
        try:
            return [value.cell_contents]
        except ValueError:  # no value yet
            return ()
    if isinstance(value, FunctionType):
        return [*(value.__closure__ or ()), value.__defaults__, *_globals(value)]
    if isinstance(value, MethodType):
        return value.__self__, value.__func__
    if isinstance(value, partial):
        return value.func, value.args, value.keywords
    if isinstance(value, ref):
        return (value(),)
    return (getattr(value, "__dict__", None),)


def _globals(function: FunctionType) -> list[Any]:
    """Returns the global dicts, lists, sets and modules that `function` names."""
    found = [function.__globals__.get(name) for name in function.__code__.co_names]
    return [value for value in found if isinstance(value, (*CONTAINERS, nn.Module))]


def _put_back(held: Any, before: Any) -> None:
    """Gives container `held` the contents `before` again, unless it still has them."""
    if isinstance(held, CellType):
        for value in before:
            held.cell_contents = value
    elif isinstance(held, set):
        held.intersection_update(before)
        held.update(before)
    elif not before:
        held.clear()
    elif isinstance(held, dict):
        same = len(held) == len(before) and all(map(is_, held.values(), before.values()))
        if not (same and all(map(is_, held, before))):
            held.clear()
            held.update(before)
    elif not (len(held) == len(before) and all(map(is_, held, before))):
        held.clear()
        held.extend(before)
