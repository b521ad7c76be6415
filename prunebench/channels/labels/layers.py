"""The torch functions that the commonest layers call, so that a labeller can call them itself.

In a forward without data, torch's way from the call of a module to its function takes longer than
everything else: without it MobileNetV2 is traced in four fifths of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.module import _has_any_global_hook


class FunctionCall(NamedTuple):
    """A function of torch and its arguments."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def function_call(module: nn.Module, args: Any, kwargs: Any) -> FunctionCall | None:
    """Returns what a call of `module` comes to: one call of a function.

    None unless it is sure to be that: the module's class is one of a few of torch's, in eval mode,
    and neither hooks nor another forward change what it does.
    """
    known = _KNOWN.get(type(module))
    if known is None:
        return None
    forward, call = known
    if (
        type(module).forward is not forward
        or "forward" in vars(module)
        or module.training
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or _has_any_global_hook()
        or kwargs
        or len(args) != 1
        or type(args[0]) is not Tensor
    ):
        return None
    return call(module, args[0])


def _conv2d(module: Any, x: Tensor) -> FunctionCall | None:
    own = module._parameters
    replaced = "_conv_forward" in vars(module)
    if replaced or module.padding_mode != "zeros" or own.keys() != {"weight", "bias"}:
        return None
    given = (x, own["weight"], own["bias"], module.stride, module.padding, module.dilation)
    return FunctionCall(torch.conv2d, (*given, module.groups), {})


def _batch_norm(module: Any, x: Tensor) -> FunctionCall | None:
    own, statistics = module._parameters, module._buffers
    mean, variance = statistics.get("running_mean"), statistics.get("running_var")
    if x.dim() != 4 or mean is None or variance is None or own.keys() != {"weight", "bias"}:
        return None
    given = (x, mean, variance, own["weight"], own["bias"], False, module.momentum, module.eps)
    return FunctionCall(functional.batch_norm, given, {})


def _relu(module: Any, x: Tensor) -> FunctionCall:
    return FunctionCall(functional.relu, (x,), {"inplace": module.inplace})


def _relu6(module: Any, x: Tensor) -> FunctionCall:
    limits = {"min_val": module.min_val, "max_val": module.max_val}
    return FunctionCall(functional.hardtanh, (x,), {**limits, "inplace": module.inplace})


#: class -> (its forward as torch has it, what a call of it comes to)
_KNOWN: dict[type, tuple[Any, Callable[[Any, Tensor], FunctionCall | None]]] = {
    nn.Conv2d: (nn.Conv2d.forward, _conv2d),
    nn.BatchNorm2d: (nn.BatchNorm2d.forward, _batch_norm),
    nn.ReLU: (nn.ReLU.forward, _relu),
    nn.ReLU6: (nn.ReLU6.forward, _relu6),
}
