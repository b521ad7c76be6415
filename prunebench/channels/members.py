"""The modules, parameters and buffers of a network by name.

In the order that torch lists them in, without the nested generators that make it slow.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def named_modules(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Returns every module of `network` once, under its first name."""
    found: list[tuple[str, nn.Module]] = []
    seen: set[int] = set()
    todo: list[tuple[str, nn.Module]] = [("", network)]
    while todo:
        name, module = todo.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        found.append((name, module))
        if module._modules:
            lead = f"{name}." if name else ""
            inner = reversed(module._modules.items())
            todo += [(lead + key, child) for key, child in inner if child is not None]
    return found


def named_parameters(network: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Returns every parameter of `network` once, under its first name."""
    return _held("_parameters", named_modules(network))


def named_tensors(network: nn.Module) -> list[tuple[str, Tensor]]:
    """Returns every parameter and then every buffer of `network` once, under its first name."""
    modules = named_modules(network)
    return [*_held("_parameters", modules), *_held("_buffers", modules)]


def _held(where: str, modules: list[tuple[str, nn.Module]]) -> list[tuple[str, Any]]:
    """Returns every tensor that `modules` hold in their dict `where`, once."""
    found: dict[int, tuple[str, Any]] = {}
    for name, module in modules:
        for key, tensor in getattr(module, where).items():
            if tensor is not None and id(tensor) not in found:
                found[id(tensor)] = (f"{name}.{key}" if name else key, tensor)
    return list(found.values())
