"""Tells whether a network's own code reads counts of channels from its layers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any, TypeGuard

from torch import nn

from prunebench.channels.members import named_modules

#: attributes of layers that say how many channels they have
COUNTS = {
    *("in_channels", "out_channels", "in_features", "out_features"),
    *("num_features", "num_channels", "num_parameters", "normalized_shape"),
}
#: names in code that reads attributes whose own name is known only when it runs
BY_NAME = {"getattr", "vars", "attrgetter", "__dict__"}


def asks_for_counts(model: nn.Module) -> bool:
    """Whether a forward in `model` that is not torch's own may read an attribute of `COUNTS`."""
    for _, module in named_modules(model):
        kind = type(module)
        if kind.__module__.startswith("torch."):
            continue
        own = (value for value in vars(module).values() if isinstance(value, FunctionType))
        asks = _forward_asks(kind)  # type: ignore[arg-type]  # classes can be hashed
        if asks or any(_asks(function, kind) for function in own):
            return True
    return False


@lru_cache(maxsize=1024)
def _forward_asks(kind: type[nn.Module]) -> bool:
    forward = getattr(kind, "forward", None)
    return isinstance(forward, FunctionType) and _asks(forward, kind)


def _asks(function: FunctionType, kind: type[nn.Module]) -> bool:
    """Whether `function`, or what it calls by name in its module and class, may read a count."""
    waiting, seen = [function], {function}
    while waiting:
        current = waiting.pop()
        for name in _names(current.__code__):
            if name in COUNTS or name in BY_NAME:
                return True
            for found in (getattr(kind, name, None), current.__globals__.get(name)):
                if _is_own(found) and found not in seen:
                    seen.add(found)
                    waiting.append(found)
    return False


def _is_own(value: Any) -> TypeGuard[FunctionType]:
    return isinstance(value, FunctionType) and not value.__module__.startswith("torch.")


def _names(code: CodeType) -> Iterator[str]:
    """Yields the names of attributes and globals in `code` and in functions inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
