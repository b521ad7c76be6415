"""Writes layers of torch as the calls that construct them."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from prunebench.errors import ConfigError

#: arguments of constructors that concern the storage of weights
ELSEWHERE = ("self", "device", "dtype")
VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def constructor(module: nn.Module) -> str:
    """Returns a call that makes a layer like `module`, such as ``nn.Conv2d(3, 16, 3, bias=False)``.

    Arguments with default values are left out.

    Raises:
        ConfigError: the layer does not keep an argument that the call needs.
    """
    kind = type(module)
    words = list[str]()
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        if name in ELSEWHERE or parameter.kind in VARIABLE:
            continue
        needed = parameter.default is parameter.empty
        value = argument(module, name)
        if value is MISSING:
            if needed:
                raise ConfigError(
                    f"{kind.__name__} does not say its {name}; export to onnx instead"
                )
        elif needed:
            words.append(repr(value))
        elif value != parameter.default:
            words.append(f"{name}={value!r}")
    return f"nn.{kind.__name__}({', '.join(words)})"


#: value of an argument that a layer does not keep
MISSING = object()


def argument(module: nn.Module, name: str) -> Any:
    """Returns the argument `name` that `module` was constructed with; `MISSING` if not kept."""
    value = getattr(module, name, MISSING)
    if isinstance(value, Tensor) or (value is None and name in module._parameters):
        return value is not None
    if isinstance(value, tuple) and value and len({*value}) == 1 and is_square(module, name):
        return value[0]
    plain = isinstance(value, bool | int | float | str | tuple | list | None)
    return value if plain else MISSING


def is_square(module: nn.Module, name: str) -> bool:
    """Returns whether `name` of a layer may be one number for all directions."""
    return name in ("kernel_size", "stride", "padding", "dilation", "output_padding") and not (
        name == "padding" and isinstance(module, nn.modules.padding._ConstantPadNd)
    )
