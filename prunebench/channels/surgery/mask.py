"""The full-size network with pruned channels zeroed: what a slimmed network must compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prunebench.channels.followable import plain
from prunebench.channels.labels.steps import bind
from prunebench.channels.labels.tensors import along
from prunebench.channels.map import ChannelMap, Ids, Kept, as_array
from prunebench.channels.members import named_parameters, named_tensors
from prunebench.channels.plan import Plan
from prunebench.channels.surgery.copying import full_copy
from prunebench.channels.surgery.own_weights import leads_out, require_own_weights

READERS = ("conv", "linear", "recurrent")
#: norms that compute statistics across channels, and what they are called with
_ACROSS = {
    "layer_norm": "input normalized_shape weight bias eps",
    "rms_norm": "input normalized_shape weight eps",
    "group_norm": "input num_groups weight bias eps",
}


def mask(model: nn.Module, cmap: ChannelMap, plan: Plan) -> nn.Module:
    """Returns a copy of `model`, full size, in which the pruned channels are zero.

    Zeroed are the producers (rows and biases), norms, depthwise layers and directly used
    parameters of every pruned channel; what reads a channel is left alone, so that a wrong index
    there shows up as a difference. Only where an activation makes something else out of zero
    (a sigmoid right before a convolution), the reader's weights are zeroed as well. Layer and group
    norms take their statistics over the surviving channels only.

    Raises:
        PruningError: the plan does not fit this network, or the copy would run the weights of
            `model`.
    """
    model = plain(model)
    cmap.check(plan)
    kept = cmap.keeps(plan)
    masked = full_copy(model)
    if leads_out(model):
        require_own_weights(masked, model, cmap, np.ones_like(kept))
    named = dict(named_tensors(masked))
    with torch.no_grad():
        _zero_cut(named, cmap, kept)
    statistics: dict[str, Tensor] = {}
    for call in cmap.tape.calls:
        stays = kept[cmap.classes(call.inputs)]
        if call.kind == "norm" and not stays.all():
            statistics[call.weight] = torch.from_numpy(stays)
    return (
        _MaskedNetwork(masked, statistics) if _any_across_channels(masked, statistics) else masked
    )


def _zero_cut(named: dict[str, Tensor], cmap: ChannelMap, kept: Kept) -> None:
    """Zeroes what makes cut channels, and what reads those that are still not zero then.

    Under weight norm the direction holds the weight itself meanwhile; the lengths are set to match.
    """
    cut = {name for (name, _), classes in cmap.dims.items() if not kept[classes].all()}
    normed = [
        (norm, named[name], named[norm.lengths])
        for name, norm in cmap.tape.normed.items()
        if name in cut
    ]
    for norm, direction, lengths in normed:
        direction.copy_(norm.weight(direction, lengths))
    for name, dim, classes in _zeroed(cmap):
        _zero(named[name], dim, ~kept[classes])
    for call in cmap.tape.calls:
        if call.kind in READERS:
            gone = ~kept[cmap.classes(call.inputs)] & as_array(call.live).astype(bool)
            _zero(named[call.weight], call.reads, gone.reshape(call.groups, -1)[0])
    for norm, direction, lengths in normed:
        norm.set(direction, lengths, norm.lengths_of(direction))


def _zeroed(cmap: ChannelMap) -> list[tuple[str, int, Ids]]:
    """Lists (name, dimension, classes) where channels are made, normed or passed on.

    A weight that one call transposes and another does not makes channels along both dimensions.
    """
    layers = [call for call in cmap.tape.calls if call.kind in READERS]
    makers = {(call.weight, 1 - call.reads) for call in layers}
    readers = {(call.weight, call.reads) for call in layers} - makers
    others = {call.weight for call in cmap.tape.calls if call.kind == "gather"}
    others |= {norm.lengths for norm in cmap.tape.normed.values()}  # they follow their weight
    keep_as_is = ("running_mean", "running_var", "num_batches_tracked")
    return [
        (name, dim, classes)
        for (name, dim), classes in cmap.dims.items()
        if (name, dim) not in readers and name not in others and not name.endswith(keep_as_is)
    ]


def _zero(tensor: Tensor, dim: int, gone: Kept) -> None:
    """Zeroes the indices of dimension `dim` that are gone."""
    if gone.any():
        tensor.index_fill_(dim, torch.from_numpy(gone.nonzero()[0]).to(tensor.device), 0)


def _any_across_channels(masked: nn.Module, statistics: dict[str, Tensor]) -> bool:
    """Whether any norm in `statistics` takes its statistics across channels."""
    buffers = {name for name, _ in masked.named_buffers()}
    return any(f"{name.rpartition('.')[0]}.running_mean" not in buffers for name in statistics)


class _MaskedNetwork(nn.Module):
    """Runs a network whose layer and group norms take statistics over some channels only."""

    def __init__(self, inner: nn.Module, statistics: dict[str, Tensor]) -> None:
        """Keeps which channels count, by name of the norm's weight."""
        super().__init__()
        self.inner = inner
        self.statistics = statistics

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the inner network."""
        named = dict(named_parameters(self.inner))
        stays = {id(named[name]): kept for name, kept in self.statistics.items() if name in named}
        with _RestrictedNorms(stays):
            return self.inner(*args, **kwargs)


class _RestrictedNorms(TorchFunctionMode):
    """Replaces norms across channels by norms across surviving channels."""

    def __init__(self, stays: dict[int, Tensor]) -> None:
        """Keeps id of the weight -> bool [channels]."""
        super().__init__()
        self.stays = stays

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Runs `func`, restricted where need be."""
        kwargs = kwargs or {}
        names = _ACROSS.get(getattr(func, "__name__", ""))
        if names is None:
            return func(*args, **kwargs)
        given = bind(names, args, kwargs)
        kept = self.stays.get(id(given.get("weight")))
        if kept is None or given.get("num_groups", 0) >= len(kept):
            return func(*args, **kwargs)
        return _norm_survivors(func, given, kept)


def _norm_survivors(norm: Any, given: dict[str, Any], kept: Tensor) -> Tensor:
    """Applies `norm` to the surviving channels alone; the others become zero (or their bias)."""
    x, weight, bias = given["input"], given["weight"], given.get("bias")
    dim = 1 if "num_groups" in given else x.dim() - 1
    index = kept.nonzero().reshape(-1).to(x.device)
    part = x.index_select(dim, index)
    eps = {"eps": given["eps"]} if "eps" in given else {}
    normed = norm(part, given.get("num_groups", part.shape[-1:]), **eps)
    out = torch.zeros_like(x).index_copy(dim, index, normed) * along(weight, dim, x.dim())
    return out if bias is None else out + along(bias, dim, x.dim())
