"""Tells which models can be followed: those whose forward runs as Python."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy

from prunebench.channels.members import named_modules
from prunebench.channels.untouched import TENSORS
from prunebench.errors import PruningError


def plain(model: nn.Module) -> nn.Module:
    """Returns the network inside ``torch.compile(network)``; any other as it is."""
    while is_compiled(model):
        inner = model._orig_mod
        assert isinstance(inner, nn.Module)
        model = inner
    return model


def is_compiled(model: nn.Module) -> bool:
    """Whether ``torch.compile`` made `model`.

    Torch's compiler, which takes a second to import, is imported by then; if not, it did not.
    """
    made = sys.modules.get("torch._dynamo.eval_frame")
    return made is not None and isinstance(model, made.OptimizedModule)


def eagerly() -> AbstractContextManager[None]:
    """Makes compiled modules run as the Python they were made from, within the block.

    Does nothing unless torch's compiler is imported: importing it takes longer than tracing a small
    network.
    """
    made = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if made else nullcontext()


def require_followable(model: Any) -> None:
    """Raises unless a forward without data can follow `model`.

    Raises:
        PruningError: `model` is no module, is TorchScript, holds an exported program, or is sharded
            or quantized (or prepared for that); or a parameter or buffer is not initialised yet, or
            no plain tensor.
    """
    if not isinstance(model, nn.Module):
        raise PruningError(f"a model must be a torch.nn.Module; got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise PruningError(
            "a TorchScript model cannot be followed; give the module that it was made from, and "
            "script the slim one"
        )
    for name, module in named_modules(model):
        if _is_exported(module):
            raise PruningError(
                f"{name or 'the model'} is an exported program, whose forward cannot be followed; "
                "give the module that it was exported from, and export the slim one"
            )
        if state := _state(module):
            raise PruningError(
                f"{name or 'the model'} ({type(module).__name__}) is {state}; prune first, and "
                "shard or quantize the slim network"
            )
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None and type(tensor) not in TENSORS:
                _require_numbers(tensor, f"{name or 'the model'} ({type(module).__name__})")


def _state(module: nn.Module) -> str:
    """Returns in words why the weights of `module` can no longer be cut; "" if they can."""
    home = type(module).__module__
    if home.startswith("torch.ao."):
        kinds = (".qat", ".quantized", ".fake_quantize", ".observer")
        # a network that is not yet quantized holds FloatFunctional, which only adds or multiplies
        float_yet = type(module).__name__ == "FloatFunctional"
        if any(kind in home for kind in kinds) and not float_yet:
            return "quantized, or prepared for it"
    return "sharded" if "_fsdp_wrapped_module" in module._modules else ""


def is_wrapped(tensor: Tensor) -> bool:
    """Whether `tensor` is made of other tensors: shards on a mesh, or integers and scales."""
    return hasattr(type(tensor), "__tensor_flatten__")


def _require_numbers(tensor: Tensor, where: str) -> None:
    """Raises if `tensor`, a parameter or buffer, does not hold numbers that can be cut.

    Args:
        tensor: a parameter or buffer.
        where: names its module in the message.

    Raises:
        PruningError: it is lazy, sharded or quantized.
    """
    if is_lazy(tensor):
        raise PruningError(
            f"{where} has no weights yet; run the model once on an input, model(example), and "
            "then prune it"
        )
    if is_wrapped(tensor):
        raise PruningError(
            f"{where} holds a {type(tensor).__name__}, which cannot be cut; prune first, and "
            "shard or quantize the slim network"
        )


def scripted_parts(model: nn.Module) -> list[str]:
    """Returns the names of the outermost modules of `model` that are TorchScript."""
    found: list[str] = []
    for name, module in named_modules(model):
        if isinstance(module, torch.jit.ScriptModule):
            inner = any(name.startswith(f"{outer}.") for outer in found)
            if not inner:
                found.append(name)
    return found


def _is_exported(module: nn.Module) -> bool:
    """Whether `module` runs a graph of operators below those of Python (``torch.export``)."""
    known = "graph" in vars(module) or hasattr(type(module), "graph")  # a failing getattr is slow
    if not known or isinstance(module, torch.jit.ScriptModule):
        return False
    graph = getattr(module, "graph", None)
    return isinstance(graph, fx.Graph) and any(
        isinstance(node.target, torch._ops.OpOverload) for node in graph.nodes
    )
