"""Finds and changes tensors inside nested values: containers, fields and attributes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Number
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, TypeVar

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

T = TypeVar("T")
#: classes that are not searched: their instances hold no tensors that belong to a result
SIMPLE = (
    str, bytes, int, float, complex, type(None), type, slice, torch.dtype, torch.device, torch.Size,
    torch.layout, torch.memory_format, nn.Module, ModuleType, FunctionType, BuiltinFunctionType,
    MethodType,
)  # fmt: skip


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yields every tensor that `value` holds, however deep.

    Networks may return anything, so every class is searched: tuples, mappings, dataclasses,
    namespaces, objects with attributes or slots, pytree nodes; but no modules or functions.
    """
    return _tensors(value, {})


def _tensors(value: Any, seen: dict[int, Any]) -> Iterator[Tensor]:
    """Does what `tensors_in` does; `seen` holds what has been searched, so that cycles end."""
    if isinstance(value, Tensor):
        yield value
    elif not isinstance(value, SIMPLE) and id(value) not in seen:
        seen[id(value)] = value
        for part in _parts(value):
            yield from _tensors(part, seen)


def _parts(value: Any) -> Iterable[Any]:
    """Returns the direct parts of `value`, which is no tensor."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, (tuple, list, set, frozenset, deque)):
        return value
    node = pytree.SUPPORTED_NODES.get(type(value))
    if node is not None:
        return node.flatten_fn(value)[0]
    slots = [name for kind in type(value).__mro__ for name in _slots(kind)]
    named = [getattr(value, name) for name in slots if hasattr(value, name)]
    return [*getattr(value, "__dict__", {}).values(), *named]


def _slots(kind: type) -> tuple[str, ...]:
    """Returns the names of the slots that a class adds, except the two that hold no value."""
    found = getattr(kind, "__slots__", ())
    names = (found,) if isinstance(found, str) else tuple(found)
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def map_tensors(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """Returns `value` with `change` applied to every tensor in nested tuples, lists and dicts."""
    return map_nested(value, Tensor, change)


def map_nested(value: Any, kind: type[T], change: Callable[[T], Any]) -> Any:
    """Returns `value` with `change` applied to every `kind` in nested tuples, lists and dicts."""
    if isinstance(value, kind):
        return change(value)
    if type(value) is dict:
        return {key: map_nested(item, kind, change) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        items = [map_nested(item, kind, change) for item in value]
        if type(value) is list:
            return items
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value


def nested(value: Any, kind: type[T]) -> Iterator[T]:
    """Yields every `kind` in nested tuples, lists and dicts."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, (tuple, list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from nested(item, kind)


def is_plain(value: Any) -> bool:
    """Whether `value` is made of numbers and words alone, which no cut changes."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(map(is_plain, value.values()))
    return value is None or isinstance(value, Number | str | torch.dtype | torch.device)
