"""Finds how batch norms are wired: which layer feeds each, what clips and reads its output."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prunebench.errors import PruningError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.channels import ChannelMap


#: functions that pass channels on one by one and keep zeros zero
PASSING = (
    *("gather_channels", "dropout", "dropout2d", "contiguous", "clone", "detach", "to"),
    "zero padding",
)
CLIPPING = ("relu", "relu6", "hardtanh")


@dataclass(frozen=True)
class Norm:
    """One batch norm of a network and its surroundings.

    Attributes:
        name: qualified name of the module.
        fed_by: the convolution or linear layer whose output only it reads, or None.
        ceiling: inf if a ReLU and nothing else reads it, 6.0 for a ReLU6; None otherwise.
        source: for a norm behind a depthwise convolution, the norm whose output (clipped or not)
            that convolution reads; None if something comes between.
        reader: the depthwise convolution that alone reads its output (clipped or not), or None.
    """

    name: str
    fed_by: str | None
    ceiling: float | None
    source: str | None
    reader: str | None


def affine(norm: nn.Module, name: str) -> tuple[Tensor, Tensor, Tensor, float]:
    """Returns a batch norm's scale, shift and running variance, float64 [C], and its epsilon.

    Raises:
        PruningError: the norm keeps no running statistics.
    """
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    assert isinstance(norm, _BatchNorm), f"{name} is no batch norm"
    if norm.running_var is None:
        raise PruningError(
            f"{name} keeps no running statistics, so nothing is known of its outputs; build it "
            "with track_running_stats=True"
        )
    variance = norm.running_var.detach().cpu().double()
    scale = torch.ones_like(variance) if norm.weight is None else norm.weight.detach().cpu()
    shift = torch.zeros_like(variance) if norm.bias is None else norm.bias.detach().cpu()
    return scale.double(), shift.double(), variance, norm.eps


def empty_image(network: nn.Module, cmap: ChannelMap) -> Tensor:
    """Returns an image of zeros in the shape that `network` was traced with (`cmap` is its map).

    Raises:
        PruningError: the network takes several inputs.
    """
    import torch

    seen, weight = cmap.tape.example, next(network.parameters())
    if not isinstance(seen, torch.Tensor):
        raise PruningError(
            "this criterion or repair follows one image tensor, and the network was given "
            f"{'a dict' if isinstance(seen, dict) else 'a tuple or list'} of inputs; choose "
            "another (criterion=l1, repair=none)"
        )
    return torch.zeros((1, *seen.shape[1:]), dtype=weight.dtype, device=weight.device)


@dataclass
class _Value:
    """A tensor of the forward: the function and layer that made it, its source, its readers."""

    function: str
    owner: str
    maker: _Value | None
    ceiling: float | None
    readers: list[_Value] = field(default_factory=list)


def wiring(network: nn.Module, example: Tensor) -> dict[str, Norm]:
    """Returns the wiring of every batch norm that the forward uses, by name, in forward order.

    Runs the network once in eval mode and leaves it unchanged.

    Args:
        network: a network in any mode.
        example: an input; only its shape matters.
    """
    values = _values(network, example)
    modules = dict(network.named_modules())
    single = {
        name
        for name, module in modules.items()
        if getattr(module, "groups", 1) > 1 and module.weight.shape[1] == 1
    }
    return {
        value.owner: _describe(value, single) for value in values if value.function == "batch_norm"
    }


def _values(network: nn.Module, example: Tensor) -> list[_Value]:
    """Returns the results of all functions of the forward, in order."""
    from prunebench.analysis.calls import follow

    named = [*network.named_parameters(), *network.named_buffers()]
    names = {id(tensor): name.rpartition(".")[0] for name, tensor in named}
    values: list[_Value] = []
    made: dict[tuple[int, int], _Value] = {}
    for call in follow(network, example).functions:
        data = [made.get(taken.key) for taken in call.taken if id(taken.tensor) not in names]
        known = [value for value in data if value is not None]
        pads = _pads_maps_with_zeros(call.name, call.args, call.kwargs)
        value = _Value(
            "zero padding" if pads else call.name,
            owner=next((names[id(t.tensor)] for t in call.taken if id(t.tensor) in names), ""),
            maker=known[0] if len(data) == len(known) == 1 else None,
            ceiling=_ceiling(call.name, call.args, call.kwargs),
        )
        values.append(value)
        for read in known:
            read.readers.append(value)
        made |= dict.fromkeys((given.key for given in call.given), value)
    return values


def _pads_maps_with_zeros(name: str, args: Any, kwargs: Any) -> bool:
    """Whether a call pads maps with zeros, as a convolution does itself."""
    if name not in ("pad", "constant_pad_nd"):
        return False
    names = ("input", "pad", "mode", "value") if name == "pad" else ("input", "pad", "value")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    on_maps = len(given["pad"]) <= 2 * (given["input"].dim() - 2) and min(given["pad"]) >= 0
    return on_maps and given.get("mode", "constant") == "constant" and not given.get("value")


def _ceiling(name: str, args: Any, kwargs: Any) -> float | None:
    """Returns the upper bound of an activation whose lower bound is 0; None for anything else."""
    if name not in CLIPPING:
        return None
    if name == "hardtanh":
        low = kwargs.get("min_val", args[1] if len(args) > 1 else -1.0)
        high = kwargs.get("max_val", args[2] if len(args) > 2 else 1.0)
        return float(high) if low == 0 else None
    return 6.0 if name == "relu6" else math.inf


def _describe(value: _Value, single: set[str]) -> Norm:
    """Returns the wiring of the norm that made `value`."""
    fed = value.maker if value.maker and value.maker.function.startswith(("conv", "lin")) else None
    clipped = value.readers[0] if len(value.readers) == 1 else None
    source = None
    if fed is not None and fed.owner in single:
        before = fed.maker
        while before is not None and before.function in (*PASSING, *CLIPPING):
            before = before.maker
        source = before.owner if before is not None and before.function == "batch_norm" else None
    return Norm(
        name=value.owner,
        fed_by=None if fed is None or len(fed.readers) != 1 else fed.owner,
        ceiling=None if clipped is None else clipped.ceiling,
        source=source,
        reader=_reader(value, single),
    )


def _reader(value: _Value, single: set[str]) -> str | None:
    """Returns the depthwise convolution that alone reads `value`, clipped or passed on."""
    while len(value.readers) == 1:
        value = value.readers[0]
        if value.function.startswith("conv") and value.owner in single:
            return value.owner
        if value.function not in (*PASSING, *CLIPPING):
            return None
    return None
