"""Lists the modules, parameters and buffers of a network by name, in torch's order.

Plain loops take the place of torch's nested generators, which are slow.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def named_modules(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Returns every module of `network` once, under its first name."""
    found: dict[int, tuple[str, nn.Module]] = {}
    _walk(network, "", found)
    return list(found.values())


def _walk(module: nn.Module, name: str, found: dict[int, tuple[str, nn.Module]]) -> None:
    """Adds `module` and the modules inside it to `found`, unless they are there."""
    if id(module) in found:
        return
    found[id(module)] = name, module
    if module._modules:
        lead = f"{name}." if name else ""
        for key, child in module._modules.items():
            if child is not None:
                _walk(child, lead + key, found)


def named_parameters(network: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Returns every parameter of `network` once, under its first name."""
    return _held("_parameters", named_modules(network))


def named_tensors(network: nn.Module) -> list[tuple[str, Tensor]]:
    """Returns every parameter and then every buffer of `network` once, under its first name."""
    modules = named_modules(network)
    return [*_held("_parameters", modules), *_held("_buffers", modules)]


def _held(where: str, modules: list[tuple[str, nn.Module]]) -> list[tuple[str, Any]]:
    """Returns every tensor that `modules` hold in their dict called `where`, once."""
    found: dict[int, tuple[str, Any]] = {}
    for name, module in modules:
        for key, tensor in getattr(module, where).items():
            if tensor is not None and id(tensor) not in found:
                found[id(tensor)] = (f"{name}.{key}" if name else key, tensor)
    return list(found.values())
