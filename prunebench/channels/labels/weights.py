"""Label rules of convolutions and linear layers: they read labels and make new ones."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from prunebench.channels.labels.labeller import Labeller
from prunebench.channels.labels.steps import bind
from prunebench.channels.labels.tape import Call, Place, Trail, leave_trail, owner, trail_of
from prunebench.channels.labels.tensors import along, dead, is_labelled, put, row_of
from prunebench.channels.labels.unknown import unknown_function
from prunebench.channels.weight_norm import WeightNorm

NOT_A_PARAMETER = "its weight is computed in the forward"


def _consume(labeller: Labeller, name: str, x: Tensor, weight: str) -> Place:
    """Returns the place of input `x`; its producers' activations are final from here on."""
    place = labeller.place(name, x, takes=True)
    if labeller.running == owner(weight):
        place.module, place.call = labeller.running, labeller.calls.get(labeller.running, 1) - 1
    trail = trail_of(x)
    if trail is not None:
        labeller.tape.done.update(trail.producers)
    return place


def _produced(labeller: Labeller, name: str, result: Tensor, weight: str) -> Tensor:
    """Marks `result` as the fresh output of a producer."""
    place = labeller.place(name, result)
    labeller.tape.activations.setdefault(weight, place)
    labeller.tape.blocks.setdefault(weight, place)
    leave_trail(result, Trail((weight,), True, place))
    return result


def refuse(labeller: Labeller, labels: Tensor, reason: str) -> None:
    """Freezes the input of the running layer, which cannot be cut, and reports it."""
    labeller.ids.freeze(labels >> 1, reason)
    labeller.tape.refused[labeller.running] = (
        reason  # replaces what functions inside the layer noted
    )


def _way_out(layer: nn.Module) -> str:
    """Returns advice on making the weight of `layer` a parameter again; "" if torch has no way."""
    if "parametrizations" in layer._modules:
        return "; torch.nn.utils.parametrize.remove_parametrizations makes it a parameter"
    if "weight_mask" in layer._buffers:
        return "; torch.nn.utils.prune.remove makes its mask permanent"
    if "weight_u" in layer._buffers:
        return "; torch.nn.utils.remove_spectral_norm makes it a parameter"
    return ""


def _refuse_weight(labeller: Labeller, labels: Tensor, w: Tensor, weight: str | None) -> None:
    """Refuses the running layer, whose weight `w` is no parameter or meets no channels."""
    if weight is not None:
        refuse(labeller, labels, "channels lie along another dimension")
        return
    labeller.ids.freeze(labeller.labels(w) >> 1, "a weight is computed from it")
    refuse(labeller, labels, NOT_A_PARAMETER)
    labeller.tape.refused[labeller.running] += _way_out(labeller.layers[labeller.running])


def conv(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Reads labels on the input channels and makes new ones for the output."""
    turned = "transpose" in name
    # _ is the dilation, or the padding of the output
    a = bind("input weight bias stride padding _ groups", args, kwargs)
    x, w, bias, groups = a["input"], a["weight"], a.get("bias"), a.get("groups", 1)
    result = convolved(labeller, name, func, args, kwargs)
    dim = x.dim() - (w.dim() - 1)
    weight = labeller.names.get(id(w))
    labels = labeller.labels(x)
    row = labeller.row(labels, dim, x.size(dim))
    spots = (x if turned else result).shape[dim + 1 :].numel() * math.prod(result.shape[:dim])
    macs = spots * w.shape[2:].numel()
    if weight is None or row is None:
        _refuse_weight(labeller, labels, w, weight)
        labeller.tape.fixed_macs += macs * w.size(0) * w.size(1)
        return result
    through, module = _by_group(labeller, weight, w, groups, turned), owner(weight)
    out = (_passed_on if through else _made)(labeller, weight, w, row.ids, groups, turned)
    live = _biased(labeller, bias, out)
    place = _consume(labeller, name, x, weight)
    kind = "depthwise" if through else "conv"
    labeller.tape.calls.append(
        Call(kind, module, weight, row.ids, row.live, out, macs, groups, place, turned)
    )
    labels = dead(out, dim, x.dim(), plain=row.plain or not through)
    put(result, labels if live is None else labels | along(live, dim, x.dim()))
    return result if through else _produced(labeller, name, result, weight)


def convolved(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Runs a convolution without data, without torch where it is a plain one."""
    usual = "transpose" not in name and not kwargs
    room = _room(*args) if usual else None
    return labeller.run(func, args, kwargs) if room is None else room


def _room(
    x: Tensor, w: Tensor, _: Any = None, stride: Any = (), padding: Any = (), dilation: Any = (),
    groups: int = 1,
) -> Tensor | None:  # fmt: skip
    """Returns an empty result of a plain convolution, ten times faster than torch, else None."""
    dims = w.dim() - 2
    numbers = (stride, padding, dilation)
    if not (
        all([type(one) is tuple and len(one) == dims for one in numbers])
        and x.dim() == w.dim()
        and x.size(1) == w.size(1) * groups
        and x.dtype == w.dtype
        and x.is_contiguous()
        and w.is_contiguous()
    ):
        return None
    sizes = [
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, s, p, d in zip(x.shape[2:], w.shape[2:], *numbers, strict=True)
    ]
    if min(sizes) < 1 or w.size(0) % groups:
        return None
    return torch.empty((x.size(0), w.size(0), *sizes), dtype=x.dtype, device="meta")


def _by_group(labeller: Labeller, weight: str, w: Tensor, groups: int, turned: bool) -> bool:
    """Whether a convolution is cut by whole groups: it has one input or output per group.

    What surgery noted on the module goes first: a cut may leave one channel per group by chance.
    """
    noted = labeller.grouped.get(owner(weight))
    if noted is not None:
        return bool(noted == "group")
    rows, columns = (w.size(1), w.size(0)) if turned else (w.size(0), w.size(1))
    per_out = rows if turned else rows // groups
    per_in = columns // groups if turned else columns
    return groups > 1 and (per_in == 1 or per_out == 1)


def _passed_on(
    labeller: Labeller, weight: str, w: Tensor, row: Tensor, groups: int, turned: bool
) -> Tensor:
    """Notes what `w` reads where whole groups are cut; returns the ids of the output."""
    count = w.size(1) * groups if turned else w.size(0)
    out = row
    if len(row) != groups or count != groups:
        inputs = row.reshape(groups, -1)
        heads = inputs[:, :1]
        labeller.ids.tie(heads.expand_as(inputs), inputs)
        out = heads.expand(groups, count // groups).reshape(-1)
    labeller.ids.read(weight, 0, row if turned else out)
    return out


def _made(
    labeller: Labeller, weight: str, w: Tensor, row: Tensor, groups: int, turned: bool
) -> Tensor:
    """Notes what `w` reads where its rows make channels; returns the ids of the output."""
    out = labeller.ids.new(w.size(1) * groups if turned else w.size(0))
    reads, makes = (_tied_groups(labeller, ids, groups) for ids in (row, out))
    labeller.ids.read(weight, 0, row if turned else out)
    labeller.ids.read(weight, 1, makes if turned else reads)
    return out


def _tied_groups(labeller: Labeller, ids: Tensor, groups: int) -> Tensor:
    """Ties the k-th channels of all groups; returns those of the first group."""
    if groups == 1:
        return ids
    parts = ids.view(groups, -1)
    labeller.ids.tie(parts[:1].expand_as(parts), parts)
    return parts[0]


def _biased(labeller: Labeller, bias: Tensor | None, out: Tensor) -> Tensor | None:
    """Assigns `bias` to the channels `out` of its layer, int64 [out].

    A bias that is computed in the forward is tied to them; then the parameters that it is computed
    from are cut along.

    Returns:
        Live bits, int64 [out]: 1 where a computed bias is not zero although its channel is cut;
        None for any other bias, or without one.
    """
    name = labeller.names.get(id(bias))
    if bias is None or name is not None:
        if name is not None:
            labeller.ids.read(name, 0, out)
        return None
    if not is_labelled(bias):
        labeller.ids.freeze(out, "its bias is a constant of the code")
        return None
    row = row_of(labeller.labels(bias)).of(len(out))
    labeller.ids.tie(row.ids, out)
    return row.live


def weight_norm(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Gives a weight that weight norm computes the name of its direction.

    Whatever uses the weight then uses a parameter; the lengths follow the direction.
    """
    a = bind("direction lengths dim", args, kwargs)
    direction, lengths = (labeller.names.get(id(a[key])) for key in ("direction", "lengths"))
    if direction is None or lengths is None:
        return unknown_function(labeller, name, func, args, kwargs)
    dim = a.get("dim", 0)
    norm = WeightNorm(lengths, dim if dim == -1 else dim % a["direction"].dim())
    normed = labeller.tape.normed
    if normed.setdefault(direction, norm) != norm or lengths in {
        other.lengths for key, other in normed.items() if key != direction
    }:
        return unknown_function(labeller, name, func, args, kwargs)
    weight = torch.empty_like(a["direction"], device="meta")
    labeller.names[id(weight)] = direction
    labeller.meta(weight)  # keeps it alive, so that nothing else gets its id
    return weight


def _require_fit(x: Tensor, w: Tensor) -> None:
    """Raises RuntimeError, as torch does, where the input has other features than `w` reads."""
    if x.size(-1) != w.size(-1):
        raise RuntimeError(f"{x.size(-1)} features come where {w.size(-1)} are read")


def linear(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Reads labels on the last dimension and makes new ones for the output."""
    a = bind("input weight bias", args, kwargs)
    x, w, bias = a["input"], a["weight"], a.get("bias")
    result = torch.empty((*x.shape[:-1], w.size(0)), dtype=x.dtype, device="meta")
    weight = labeller.names.get(id(w))
    labels = labeller.labels(x)
    macs = math.prod(x.shape[:-1])
    row = labeller.row(labels, x.dim() - 1, x.size(-1))
    if weight is None or row is None:
        _require_fit(x, w)
        if weight is not None and labels.size(-1) == 1:
            each = macs * w.numel() // labels.numel()
            labeller.tape.spread_macs.append((each, labels.reshape(-1) >> 1))
            labeller.tape.refused.setdefault(owner(weight), "it mixes positions, not channels")
            return put(result, labels | (bias is not None))
        labeller.tape.fixed_macs += macs * w.numel()
        _refuse_weight(labeller, labels, w, weight)
        return result
    out = labeller.ids.new(w.size(0))
    labeller.ids.read(weight, 0, out)
    labeller.ids.read(weight, 1, row.ids)
    _require_fit(x, w)  # last: a replayed cut has compared by now what is read, and says more
    live = _biased(labeller, bias, out)
    place = _consume(labeller, name, x, weight)
    labeller.tape.calls.append(
        Call("linear", owner(weight), weight, row.ids, row.live, out, macs, 1, place)
    )
    labels = dead(out, x.dim() - 1, x.dim())
    put(result, labels if live is None else labels | along(live, x.dim() - 1, x.dim()))
    return _produced(labeller, name, result, weight)
