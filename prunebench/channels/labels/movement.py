"""What moving data does to channel labels: the same as to the data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prunebench.channels.labels.labeller import Labeller
from prunebench.channels.labels.tape import Call
from prunebench.channels.labels.tensors import (
    along,
    is_labelled,
    labels_of,
    map_tensors,
    put,
    shrink,
    tensors_in,
)
from prunebench.channels.labels.unknown import unknown_function

#: moves that ask for no number of channels, so that they hold after any cut
_BY_ORDER = ["flatten", "permute", "transpose", "t", "unsqueeze", "stack", "movedim", "__get__"]


def movement(run: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Moves the labels by the same function as the data."""
    given = list(tensors_in([args, kwargs]))
    sources = [t for t in given if t.is_floating_point() or is_labelled(t)]
    if len(sources) < len(given) and _opaque(run, sources, given):
        return unknown_function(run, name, func, args, kwargs)
    result = run.run(func, args, kwargs)
    labels = [run.labels(t) for t in sources]
    if all(one.numel() == 1 for one in labels):
        value = max((int(one.max()) for one in labels), default=0)
        for out in tensors_in(result):
            put(out, torch.full([1] * out.dim(), value))
        if len({int(one.max()) for one in labels}) <= 1:
            return result
    if name not in _BY_ORDER:
        run.tape.fragile = True
    by_id = {id(t): one.expand(t.shape) for t, one in zip(sources, labels, strict=True)}
    # labels are expanded, so their strides may not allow a view where the data's do
    on_labels = Tensor.reshape if func is Tensor.view else func
    moved = on_labels(
        *map_tensors(args, lambda t: by_id.get(id(t), t)),
        **map_tensors(kwargs, lambda t: by_id.get(id(t), t)),
    )
    for out, one in zip(tensors_in(result), tensors_in(moved), strict=True):
        put(out, shrink(one))
    return result


def _opaque(run: Labeller, sources: list[Tensor], given: list[Tensor]) -> bool:
    """Whether a look-up by an index tensor is not followed.

    Tables of parameters are not (their answers are no channels), nor is an index without data.
    """
    table = all(id(t) in run.names for t in sources)
    return table or any(t.is_meta for t in given if not t.is_floating_point())


def concat(run: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Concatenates labels."""
    parts = list(args[0] if args else kwargs.get("tensors"))
    dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
    parts = [t for t in parts if not (t.dim() == 1 and t.numel() == 0)]
    dim %= parts[0].dim()
    shape = list(parts[0].shape)
    shape[dim] = sum(t.size(dim) for t in parts)
    result = torch.empty(shape, dtype=parts[0].dtype, device="meta")
    labels = [run.labels(t) for t in parts]
    sizes = [max(one.size(d) for one in labels) for d in range(len(shape))]
    wide = []
    for t, one in zip(parts, labels, strict=True):
        sizes[dim] = t.size(dim)
        wide.append(one.expand(sizes))
    joined = torch.cat(wide, dim)
    values = {int(one) if one.numel() == 1 else -1 for one in labels}
    if len(values) == 1 and -1 not in values:
        joined = joined.narrow(dim, 0, 1)
    return put(result, joined)


def zeros(run: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Labels zeros that are made in the forward along dimension 1, where channels usually lie."""
    result = run.run(func, args, {**kwargs, "device": "meta"})
    if result.dim() < 2 or result.size(1) == 1:
        return result
    run.tape.fragile = True
    ids = run.new_zeros(result.size(1))
    return put(result, along(ids * 2, 1, result.dim()))


def pad(run: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Pads labels with new ones on dimensions that hold channels."""
    result = run.run(func, args, kwargs)
    x = args[0] if args else kwargs["input"]
    widths = list(args[1] if len(args) > 1 else kwargs["pad"])
    mode = args[2] if len(args) > 2 else kwargs.get("mode", "constant")
    value = args[3] if len(args) > 3 else kwargs.get("value", None)
    labels = run.labels(x)
    for at in range(len(widths) // 2):
        dim = x.dim() - 1 - at
        before, after = widths[2 * at], widths[2 * at + 1]
        if labels.size(dim) == 1 or before == after == 0:
            continue
        run.tape.fragile = True
        if mode != "constant" or min(before, after) < 0 or labels.numel() != labels.size(dim):
            run.ids.freeze(labels >> 1, f"padded with {mode} along channels")
            labels = labels_of(result)
            break
        sides = [along(run.new_zeros(n) * 2, dim, x.dim()) for n in (before, after)]
        labels = torch.cat([sides[0], labels, sides[1]], dim)
    if value:
        labels = labels | 1
    return put(result, labels)


def gather(run: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Picks labels by a `GatherChannels` index; missing ones get labels of their own."""
    x, index, dim = args
    labels = run.labels(x)
    shape = list(x.shape)
    positions = torch.tensor(run.gathers[id(index)], dtype=torch.int64)
    shape[dim] = len(positions)
    result = torch.empty(shape, dtype=x.dtype, device="meta")
    row = run.row(labels, dim, x.size(dim))
    if row is None:
        run.ids.freeze(labels >> 1, "a gather over mixed channels")
        return result
    picked = row[positions.clamp(min=0)]
    missing = positions < 0
    picked[missing] = run.new_zeros(int(missing.sum())) * 2
    call = Call(
        "gather",
        run.stack[-1],
        run.names[id(index)],
        row >> 1,
        row & 1,
        picked >> 1,
        0,
        1,
        run.place(name, x, takes=True),
        positions=tuple(positions.tolist()),
    )
    run.ids.read(run.names[id(index)], 0, picked >> 1)
    run.ids.read(run.names[id(index)] + "/from", 0, row >> 1)
    run.note(call)
    return put(result, along(picked, dim, x.dim()))
