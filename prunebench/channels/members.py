"""The modules, parameters and buffers of a network by name.

In the order that torch lists them in, without the nested generators that make it slow.
"""

from __future__ import annotations

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
    found: dict[int, tuple[str, nn.Parameter]] = {}
    for name, module in named_modules(network):
        for key, parameter in module._parameters.items():
            if parameter is not None and id(parameter) not in found:
                found[id(parameter)] = (f"{name}.{key}" if name else key, parameter)
    return list(found.values())


def named_tensors(network: nn.Module) -> list[tuple[str, Tensor]]:
    """Returns every parameter and then every buffer of `network` once, under its first name."""
    parameters = named_parameters(network)
    found: dict[int, tuple[str, Tensor]] = {}
    for name, module in named_modules(network):
        for key, buffer in module._buffers.items():
            if buffer is not None and id(buffer) not in found:
                found[id(buffer)] = (f"{name}.{key}" if name else key, buffer)
    return [*parameters, *found.values()]
