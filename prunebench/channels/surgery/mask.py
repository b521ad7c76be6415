"""The full-size network with pruned channels zeroed: what a slimmed network must compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prunebench.channels.followable import plain
from prunebench.channels.labels.tensors import along
from prunebench.channels.map import ChannelMap, as_array
from prunebench.channels.members import named_parameters, named_tensors
from prunebench.channels.plan import Plan
from prunebench.channels.surgery.copying import full_copy
from prunebench.channels.surgery.own_weights import leads_out, require_own_weights

Kept = NDArray[np.bool_]
READERS = ("conv", "linear", "recurrent")


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
    with _weights_plain(named, cmap, kept):
        _zero_cut(named, cmap, kept)
    statistics: dict[str, Tensor] = {}
    for call in cmap.tape.calls:
        stays = kept[cmap.class_of[as_array(call.inputs)]]
        if call.kind == "norm" and not stays.all():
            statistics[call.weight] = torch.from_numpy(stays)
    return _Restricted(masked, statistics) if _wide(masked, cmap, statistics) else masked


@contextmanager
def _weights_plain(named: dict[str, Tensor], cmap: ChannelMap, kept: Kept) -> Iterator[None]:
    """While it is open, the directions of weight norms hold the weights that come of them.

    Those that no channel goes from are left alone.
    """
    cut = {name for (name, _), classes in cmap.dims.items() if not kept[classes].all()}
    normed = [
        (norm, named[name], named[norm.lengths])
        for name, norm in cmap.tape.normed.items()
        if name in cut
    ]
    with torch.no_grad():
        for norm, direction, lengths in normed:
            direction.copy_(norm.weight(direction, lengths))
        yield
        for norm, direction, lengths in normed:
            norm.set(direction, lengths, norm.lengths_of(direction))


def _zero_cut(named: dict[str, Tensor], cmap: ChannelMap, kept: Kept) -> None:
    """Zeroes what makes cut channels, and what reads them where they are not zero by then."""
    for name, dim, classes in _zeroed(cmap):
        gone = ~kept[classes]
        if gone.any():
            _zero(named[name], dim, gone)
    for call in cmap.tape.calls:
        gone = ~kept[cmap.class_of[as_array(call.inputs)]] & as_array(call.live).astype(bool)
        if call.kind in READERS and gone.any():
            _zero(named[call.weight], 0 if call.turned else 1, gone.reshape(call.groups, -1)[0])


def _zeroed(cmap: ChannelMap) -> list[tuple[str, int, NDArray[np.int64]]]:
    """Lists the dimensions along which channels are made, normed or passed on.

    A weight that one call turns and another does not makes channels along both.
    """
    layers = [call for call in cmap.tape.calls if call.kind in READERS]
    makers = {(call.weight, 1 if call.turned else 0) for call in layers}
    readers = {(call.weight, 0 if call.turned else 1) for call in layers} - makers
    others = {call.weight for call in cmap.tape.calls if call.kind == "gather"}
    others |= {norm.lengths for norm in cmap.tape.normed.values()}  # they follow their weight
    keep_as_is = ("running_mean", "running_var", "num_batches_tracked")
    return [
        (name, dim, classes)
        for (name, dim), classes in cmap.dims.items()
        if (name, dim) not in readers and name not in others and not name.endswith(keep_as_is)
    ]


def _zero(tensor: Tensor, dim: int, gone: Kept) -> None:
    """Zeroes some indices of one dimension."""
    with torch.no_grad():
        tensor.index_fill_(dim, torch.from_numpy(gone.nonzero()[0]).to(tensor.device), 0)


def _wide(masked: nn.Module, cmap: ChannelMap, statistics: dict[str, Tensor]) -> bool:
    """Whether a norm of `statistics` computes them across channels."""
    buffers = {name for name, _ in masked.named_buffers()}
    return any(f"{name.rpartition('.')[0]}.running_mean" not in buffers for name in statistics)


class _Restricted(nn.Module):
    """Runs a network with the statistics of its layer and group norms over some channels only."""

    def __init__(self, inner: nn.Module, statistics: dict[str, Tensor]) -> None:
        """Keeps which channels count, by name of the norm's weight."""
        super().__init__()
        self.inner = inner
        self.statistics = statistics

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the inner network."""
        named = dict(named_parameters(self.inner))
        stays = {id(named[name]): kept for name, kept in self.statistics.items() if name in named}
        with _Statistics(stays):
            return self.inner(*args, **kwargs)


class _Statistics(TorchFunctionMode):
    """Replaces norms across channels by ones over surviving channels."""

    def __init__(self, stays: dict[int, Tensor]) -> None:
        """Keeps id of the weight -> bool [channels]."""
        super().__init__()
        self.stays = stays

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Runs `func`, restricted where need be."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("layer_norm", "group_norm", "rms_norm"):
            x, size, weight = args[0], args[1], kwargs.get("weight", (*args, None, None)[2])
            kept = self.stays.get(id(weight))
            if kept is not None and name == "group_norm" and size < len(kept):
                return _within(
                    x,
                    kept,
                    1,
                    lambda part: _group_norm(part, size, kwargs, args),
                    weight,
                    _bias(args, kwargs),
                )
            if kept is not None and name != "group_norm":
                eps = kwargs.get("eps", args[-1] if isinstance(args[-1], float) else 1e-5)
                norm = F.rms_norm if name == "rms_norm" else F.layer_norm
                return _within(
                    x,
                    kept,
                    x.dim() - 1,
                    lambda part: norm(part, part.shape[-1:], eps=eps),
                    weight,
                    None if name == "rms_norm" else _bias(args, kwargs),
                )
        return func(*args, **kwargs)


def _bias(args: Any, kwargs: Any) -> Tensor | None:
    return cast("Tensor | None", kwargs.get("bias", (*args, None, None, None, None)[3]))


def _group_norm(part: Tensor, groups: int, kwargs: Any, args: Any) -> Tensor:
    eps = kwargs.get("eps", args[-1] if isinstance(args[-1], float) else 1e-5)
    return F.group_norm(part, groups, eps=eps)


def _within(
    x: Tensor, kept: Tensor, dim: int, norm: Any, weight: Tensor | None, bias: Tensor | None
) -> Tensor:
    """Norms the surviving channels alone and leaves zeros in the others."""
    index = kept.nonzero().reshape(-1).to(x.device)
    out = torch.zeros_like(x).index_copy(dim, index, norm(x.index_select(dim, index)))
    if weight is not None:
        out = out * along(weight, dim, x.dim())
    return out if bias is None else out + along(bias, dim, x.dim())
