"""Records which module and which torch function of a forward reads which tensor."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from prunebench.channels import in_mode
from prunebench.channels.tensors import tensors_in

#: elementwise functions of one tensor, which modules such as nn.ReLU call, too
ACTIVATIONS = {
    "relu", "relu6", "hardtanh", "leaky_relu", "elu", "celu", "selu", "silu", "gelu", "hardswish",
    "hardsigmoid", "prelu", "sigmoid", "tanh", "mish", "softplus", "clamp", "clamp_min", "clip",
}  # fmt: skip

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Reading:
    """A tensor at the moment it is read, with the version (count of writes) it then has."""

    tensor: Tensor
    version: int

    @property
    def key(self) -> tuple[int, int]:
        """Identifies the tensor and its version: no other recorded tensor has this key.

        Its version is part of it, since an addition in place leaves the tensor the same object.
        """
        return id(self.tensor), self.version


@dataclass(frozen=True)
class ModuleCall:
    """One call of a module without children, with the tensor it takes and the one it returns."""

    module: nn.Module
    taken: Reading
    given: Reading


@dataclass(frozen=True)
class FunctionCall:
    """One call of a function that returns floats, with the tensors it takes and returns."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    taken: tuple[Reading, ...]
    given: tuple[Reading, ...]

    @property
    def name(self) -> str:
        """The function's name, without the underscore of its in-place form."""
        return str(getattr(self.function, "__name__", "")).removesuffix("_")


@dataclass
class Calls:
    """All calls of one forward, in order."""

    modules: list[ModuleCall] = field(default_factory=list)
    functions: list[FunctionCall] = field(default_factory=list)

    def output(self, module: nn.Module) -> Reading | None:
        """Returns what `module` returns at its first call; None if it is not called."""
        return next((call.given for call in self.modules if call.module is module), None)

    def reader(self, given: Reading | None, kind: type[nn.Module]) -> nn.Module | None:
        """Returns the first module of class `kind` that reads the very tensor `given`."""
        if given is None:
            return None
        readers = (call.module for call in self.modules if call.taken.key == given.key)
        return next((module for module in readers if isinstance(module, kind)), None)

    def activation(self, given: Reading | None) -> Activation | None:
        """Returns the activation (not in place) that reads tensor `given`, if nothing else does."""
        readers = [
            call
            for call in self.functions
            if given is not None and any(taken.key == given.key for taken in call.taken)
        ]
        if len(readers) != 1 or readers[0].name not in ACTIVATIONS:
            return None
        return _not_in_place(readers[0])


def follow(network: nn.Module, example: Tensor) -> Calls:
    """Runs the network once in eval mode and returns all calls; the network is left unchanged."""
    calls = Calls()
    taken: list[Reading] = []

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        first = inputs[0] if inputs and isinstance(inputs[0], Tensor) else torch.empty(0)
        taken.append(_reading(first))

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        read = taken.pop()
        if inputs and isinstance(output, Tensor):
            calls.modules.append(ModuleCall(module, read, _reading(output)))

    class Noting(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            read = tuple(_reading(tensor) for tensor in tensors_in([args, kwargs]))
            result = func(*args, **kwargs)
            given = tuple(_reading(out) for out in tensors_in(result) if out.is_floating_point())
            if given:
                calls.functions.append(FunctionCall(func, args, kwargs, read, given))
            return result

    with ExitStack() as hooks, in_mode(network), torch.no_grad(), Noting():
        for module in network.modules():
            if not any(True for _ in module.children()):
                hooks.enter_context(module.register_forward_pre_hook(before))
                hooks.enter_context(module.register_forward_hook(after))
        network(example)
    return calls


def _reading(tensor: Tensor) -> Reading:
    return Reading(tensor, tensor._version)


def _not_in_place(call: FunctionCall) -> Activation:
    """Returns the activation of `call` as a function of one tensor, which it does not change."""
    function = call.function
    if function.__name__.endswith("_"):
        home = functional if hasattr(functional, call.name) else torch
        function = getattr(home, call.name)
    rest, named = call.args[1:], dict(call.kwargs)
    for key in ("inplace", "input", "self"):
        named.pop(key, None)
    try:
        names = list(inspect.signature(function).parameters)
    except ValueError:  # a builtin, which takes no `inplace`
        names = []
    if "inplace" in names[: len(call.args)]:
        rest = call.args[1 : names.index("inplace")]
    return partial(_called, function, rest, named)


def _called(function: Any, rest: tuple[Any, ...], named: dict[str, Any], x: Tensor) -> Tensor:
    answer: Tensor = function(x, *rest, **named)
    return answer
