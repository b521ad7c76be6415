"""Label rules of functions that move data: labels move as the data do."""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor

from prunebench.channels.labels.labeller import Labeller
from prunebench.channels.labels.steps import bind, given_in, worn
from prunebench.channels.labels.tape import FROM, Call
from prunebench.channels.labels.tensors import along, is_labelled, labels_of, put
from prunebench.channels.labels.unknown import unknown_function
from prunebench.channels.labels.values import (
    mix,
    packed,
    put_moved,
    put_values,
    standing,
    values_of,
)
from prunebench.channels.tensors import map_tensors, tensors_in

#: moves whose arguments are no numbers of channels, so that they are right after any cut
_BY_ORDER = ["flatten", "permute", "transpose", "t", "unsqueeze", "stack", "movedim", "__get__"]


#: moves that leave all elements in their order
_RESHAPES = ["view", "reshape", "flatten", "unflatten", "view_as", "reshape_as"]


def movement(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Moves labels and value numbers by the same function as the data."""
    given = given_in((*args, *kwargs.values()))
    # integers after the first argument are indices, even where they were computed from channels
    sources = [
        t
        for nth, t in enumerate(given)
        if t.is_floating_point() or (is_labelled(t) and (nth == 0 or name == "stack"))
    ]
    if len(sources) < len(given) and _opaque(labeller, sources, given):
        return unknown_function(labeller, name, func, args, kwargs)
    if labeller.constants(given):
        return func(*args, **kwargs)  # a part of a constant is a constant with data
    result = labeller.run(func, args, kwargs)
    labels = [labeller.labels(t) for t in sources]
    if all(one.numel() == 1 and int(one) <= 1 for one in labels):
        _move_unlabelled(labeller, sources, result)
        return result
    known = [packed(one, values_of(t)) for t, one in zip(sources, labels, strict=True)]
    if name in _RESHAPES and len(sources) == 1:
        _reshape(sources[0].shape, known[0], result)
    else:
        _move(func, args, kwargs, sources, known, result)
    some = name not in _BY_ORDER and any(one.numel() > 1 for one in labels)
    if some and not _keeps_all(name, args, labels[0], result):
        labeller.moves_by_number()
    return result


def _reshape(shape: Sequence[int], known: Tensor, result: Tensor) -> None:
    """Labels `result`, a reshaped tensor of `shape` that wears `known`.

    The last dimensions (pixels, mostly) are skipped where neither shape nor labels change.
    """
    same = 0
    while (
        same < min(len(shape), result.dim())
        and shape[-1 - same] == result.shape[-1 - same]
        and known.size(-1 - same) == 1
    ):
        same += 1
    before = [*shape[: len(shape) - same], *[1] * same]
    after = [*result.shape[: result.dim() - same], *[1] * same]
    stood = standing(before, known)
    put_moved(result, known.expand(before).reshape(after), stood.reshape(after))


def _move(
    func: Any, args: Any, kwargs: Any, sources: list[Tensor], known: list[Tensor], result: Any
) -> None:
    """Labels `result` by applying `func`, which made it of `sources`, to what those wear."""

    def move(rows: list[Tensor]) -> list[Tensor]:
        by_id = {id(t): one.expand(t.shape) for t, one in zip(sources, rows, strict=True)}
        given = map_tensors((args, kwargs), lambda t: by_id.get(id(t), t))
        # labels are expanded, so their strides may not allow a view where the data's do
        on_labels = Tensor.reshape if func is Tensor.view else func
        return list(tensors_in(on_labels(*given[0], **given[1])))

    stood = move([standing(t.shape, both) for t, both in zip(sources, known, strict=True)])
    for out, both, was in zip(tensors_in(result), move(known), stood, strict=True):
        put_moved(out, both, was)


def _keeps_all(name: str, args: Any, labels: Tensor, result: Any) -> bool:
    """Whether slices leave all channels in their order, as ``x[:, :, ::2, ::2]`` does."""
    if name != "__getitem__":
        return False
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    slices = all(part is None or isinstance(part, (int, slice, EllipsisType)) for part in index)
    return slices and torch.equal(labels.reshape(-1), labels_of(result).reshape(-1))


def _move_unlabelled(labeller: Labeller, sources: list[Tensor], result: Any) -> None:
    """Labels moved data that holds no channels; its elements are not told apart."""
    live = max((int(labeller.labels(t).max()) for t in sources), default=0)
    salt = labeller.ids.at
    for t in sources:
        salt = mix(salt, worn(t, labeller.names).number())
    for out in tensors_in(result):
        put(out, torch.full([1] * out.dim(), live))
        labeller.moved += 1
        put_values(out, mix(salt, labeller.moved))


def _opaque(labeller: Labeller, sources: list[Tensor], given: list[Tensor]) -> bool:
    """Whether a look-up by an index tensor cannot be followed.

    That holds for tables of parameters, whose entries are no channels, and indices without data.
    """
    table = all(id(t) in labeller.names for t in sources)
    return table or any(t.is_meta for t in given if not t.is_floating_point())


def concat(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Concatenates labels and value numbers."""
    dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
    parts = [t for t in args[0] if not (t.dim() == 1 and t.numel() == 0)]
    dim %= parts[0].dim()
    shape = list(parts[0].shape)
    shape[dim] = sum(t.size(dim) for t in parts)
    result = torch.empty(shape, dtype=parts[0].dtype, device="meta")
    labels = [labeller.labels(t) for t in parts]
    joined = _joined(parts, labels, dim)
    same = {int(one) if one.numel() == 1 else -1 for one in labels}
    if len(same) == 1 and -1 not in same:
        joined = joined.narrow(dim, 0, 1)
    numbers = [values_of(t) for t in parts]
    if all(not isinstance(one, Tensor) and one == numbers[0] for one in numbers):
        put_values(result, numbers[0])
    else:
        lone = [1] * len(shape)
        wide = [one if isinstance(one, Tensor) else torch.full(lone, one) for one in numbers]
        put_values(result, _joined(parts, wide, dim))
    return put(result, joined)


def _joined(parts: list[Tensor], rows: list[Tensor], dim: int) -> Tensor:
    """Concatenates what the `parts` wear along `dim`."""
    sizes = [max(one.size(d) for one in rows) for d in range(rows[0].dim())]
    wide = []
    for t, one in zip(parts, rows, strict=True):
        sizes[dim] = t.size(dim)
        wide.append(one.expand(sizes))
    return torch.cat(wide, dim)


def _new_zeros(labeller: Labeller, count: int) -> Tensor:
    """Returns new label ids for channels that hold nothing but zeros."""
    ids = labeller.ids.new(count)
    labeller.tape.zeros.append(ids)
    return ids


def zeros(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Makes zeros, with new labels along dimension 1, where channels usually lie."""
    result = labeller.run(func, args, {**kwargs, "device": "meta"})
    if result.dim() < 2 or result.size(1) == 1:
        return result
    labeller.moves_by_number()
    ids = _new_zeros(labeller, result.size(1))
    return put(result, along(ids * 2, 1, result.dim()))


def pad(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Pads labels with new ones on dimensions that hold channels."""
    result = labeller.run(func, args, kwargs)
    names = "input pad value" if name == "constant_pad_nd" else "input pad mode value"
    given = bind(names, args, kwargs)
    x, widths, mode = given["input"], given["pad"], given.get("mode", "constant")
    labels, values = labeller.labels(x), values_of(x)
    for at in range(len(widths) // 2):
        dim = x.dim() - 1 - at
        before, after = widths[2 * at], widths[2 * at + 1]
        if labels.size(dim) == 1 or before == after == 0:
            continue
        labeller.moves_by_number()
        if mode != "constant" or min(before, after) < 0 or labels.numel() != labels.size(dim):
            labeller.ids.freeze(labels >> 1, f"padded with {mode} along channels")
            labels = labels_of(result)
            break
        sides = [along(_new_zeros(labeller, n) * 2, dim, x.dim()) for n in (before, after)]
        labels = torch.cat([sides[0], labels, sides[1]], dim)
        if isinstance(values, Tensor) and values.size(dim) > 1:
            ends = [torch.zeros_like(one) for one in sides]
            values = torch.cat([ends[0], values, ends[1]], dim)
    if given.get("value"):
        labels = labels | 1
    if result.shape[2:] != x.shape[2:]:
        for width in (len(mode), *widths):
            values = mix(values, width)
    return put_values(put(result, labels), values)


def gather(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Picks labels by a `GatherChannels` index; missing ones get labels of their own."""
    x, index, dim = args
    labels = labeller.labels(x)
    shape = list(x.shape)
    positions = torch.tensor(labeller.gathers[id(index)], dtype=torch.int64)
    shape[dim] = len(positions)
    result = torch.empty(shape, dtype=x.dtype, device="meta")
    row = labeller.row(labels, dim, x.size(dim))
    if row is None:
        labeller.ids.freeze(labels >> 1, "a gather over mixed channels")
        return result
    there = positions.clamp(min=0)
    picked, live = row.ids[there], row.live[there]
    missing = positions < 0
    picked[missing], live[missing] = _new_zeros(labeller, int(missing.sum())), 0
    call = Call(
        "gather",
        labeller.running,
        labeller.names[id(index)],
        row.ids,
        row.live,
        picked,
        0,
        1,
        labeller.place(name, x, takes=True),
        positions=tuple(positions.tolist()),
    )
    labeller.ids.read(labeller.names[id(index)], 0, picked)
    labeller.ids.read(labeller.names[id(index)] + FROM, 0, row.ids)
    labeller.tape.calls.append(call)
    values = values_of(x)
    if isinstance(values, Tensor) and values.size(dim) > 1:
        values = values.index_select(dim, there)
    return put_values(put(result, along(picked * 2 + live, dim, x.dim())), values)
