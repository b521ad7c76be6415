"""Label rules of elementwise functions: activations, sums, products."""

from __future__ import annotations

import math
from functools import reduce
from operator import and_, or_
from typing import Any

import torch
from torch import Tensor

from prunebench.channels.labels.labeller import Labeller
from prunebench.channels.labels.steps import given_in, in_place
from prunebench.channels.labels.tape import Trail, leave_trail, trail_of
from prunebench.channels.labels.tensors import dead, is_labelled, labels_of, put, row_of
from prunebench.channels.tensors import map_tensors

#: functions whose result has the type of their operands
_SAME_TYPE = {
    *("add", "__add__", "__radd__", "sub", "__sub__"),
    *("mul", "__mul__", "div", "__truediv__"),
}

#: functions that add or subtract two tensors: the result is zero where both are
_SUMS = {
    *("add", "add_", "__add__", "__radd__", "__iadd__"),
    *("sub", "sub_", "__sub__", "__rsub__", "__isub__", "rsub", "subtract"),
}

_ZEROS: dict[tuple[Any, ...], bool] = {}


def _moves_zero(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether `func` makes anything but zeros of zeros; tried once for each kind of call."""
    if kwargs.get("inplace"):
        kwargs = {key: value for key, value in kwargs.items() if key != "inplace"}
    rest = [args[1:], kwargs]
    if not isinstance(args[0], Tensor) or given_in((*args[1:], *kwargs.values())):
        rest = map_tensors([args, kwargs], lambda t: 0)
    key = func, len(args), str(rest)
    if key not in _ZEROS:
        zeros = map_tensors([args, kwargs], lambda t: torch.zeros((1,) * max(1, t.dim())))
        try:
            result = func(*zeros[0], **zeros[1])
            _ZEROS[key] = bool((result != 0).any())
        except (RuntimeError, TypeError, IndexError, ValueError):
            _ZEROS[key] = True
    return _ZEROS[key]


def unary(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Carries labels through an activation; a cut channel stays zero only if f(0) = 0."""
    x = args[0]
    labels = labeller.labels(x)
    result: Any = x
    if not in_place(name, args, kwargs):
        result = torch.empty(x.shape, dtype=x.dtype, device="meta")
    if labels.numel() and _moves_zero(func, args, kwargs):
        labels = labels | 1
    put(result, labels)
    trail = trail_of(x)
    if trail is not None:
        place = labeller.place(name, result)
        if trail.raw:
            labeller.tape.pass_on(trail, place)
            labeller.tape.done.update(trail.producers)
        leave_trail(result, Trail(trail.producers, False, place))
    return result


def elementwise(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Ties the channels of the operands position by position."""
    operands = [t for t in given_in((*args, *kwargs.values())) if t.dim() > 0]
    if not operands:
        return labeller.run(func, args, kwargs)
    shape = operands[0].shape
    if any(t.shape != shape for t in operands):  # broadcast_shapes is slow even if all are equal
        shape = torch.broadcast_shapes(*(t.shape for t in operands))
    if in_place(name, args, kwargs) and isinstance(args[0], Tensor) and args[0].is_meta:
        result = args[0]
    elif all(t.dtype == operands[0].dtype for t in operands) and name in _SAME_TYPE:
        result = torch.empty(shape, dtype=operands[0].dtype, device="meta")
    else:
        result = labeller.run(func, args, kwargs)
    labels = [_labels_beside(labeller, t, operands) for t in operands]
    if name in _SUMS and _are_alike(operands, labels):
        labeller.ids.tie(*(row_of(one).ids for one in labels))
        put(result, labels[1])
        _add_trails(labeller, name, operands, result)
        return result
    ids, live = _tie_operands(labeller, operands, labels, len(shape))
    if any(key in name for key in ("mul", "div")):
        flags = live[:1] if "div" in name and operands[0] is args[0] else live
        _note_gates(labeller, labels, live)
        flag = reduce(and_, flags)
    else:
        flag = reduce(or_, live)
        # a constant of the forward does not vanish with any channel
        fixed = any(not is_labelled(t) and id(t) not in labeller.names for t in operands)
        if fixed or _moves_zero(func, args, kwargs):
            flag = torch.ones_like(flag)
    put(result, ids * 2 + flag)
    _add_trails(labeller, name, operands, result)
    return result


def _are_alike(operands: list[Tensor], labels: list[Tensor]) -> bool:
    """Whether `operands` are two tensors of one shape, with plain labels of one shape."""
    if len(operands) != 2 or operands[0].shape != operands[1].shape:
        return False
    same = labels[0].shape == labels[1].shape
    return same and all(row_of(one).plain for one in labels)


def _labels_beside(labeller: Labeller, t: Tensor, operands: list[Tensor]) -> Tensor:
    """Returns the labels of `t`, one of `operands`.

    A parameter of any size (a scale, a position embedding) takes those of the other operand along
    that operand's one channel dimension: the only one where all neighbours differ.
    """
    if id(t) not in labeller.names or len(operands) != 2:
        return labeller.labels(t)
    other = operands[1] if t is operands[0] else operands[0]
    labels = labels_of(other)
    dims = [d for d in range(labels.dim()) if labels.size(d) > 1 and not _alike(labels, d)]
    if id(other) in labeller.names or len(dims) != 1:
        return labeller.labels(t)
    dim = dims[0] - other.dim() + t.dim()
    if dim < 0 or t.size(dim) != labels.size(dims[0]):
        return labeller.labels(t)
    row = labeller.row(labels, dims[0], other.size(dims[0]))
    assert row is not None
    labeller.ids.read(labeller.names[id(t)], dim, row.ids)
    return dead(row.ids, dim, t.dim(), plain=row.plain)


def _alike(labels: Tensor, dim: int) -> bool:
    """Whether any two neighbours along dimension `dim` have the same label."""
    rows = (labels >> 1).movedim(dim, 0).reshape(labels.size(dim), -1)
    return bool((rows[1:] == rows[:-1]).all(1).any())


def _note_gates(labeller: Labeller, labels: list[Tensor], live: list[Tensor]) -> None:
    """Notes an operand that only scales the other, since its cut channels are not zero."""
    if len(labels) == 2 and bool(live[0].all()) != bool(live[1].all()):
        gate = labels[0] if bool(live[0].all()) else labels[1]
        labeller.tape.gates.append(gate.reshape(-1) >> 1)


def _add_trails(labeller: Labeller, name: str, operands: list[Tensor], result: Tensor) -> None:
    """Treats a sum of fresh outputs as fresh, so that its activation counts as theirs."""
    trails = [t for t in (trail_of(o) for o in operands) if t is not None]
    producers = tuple(
        p for t in trails if t.raw for p in t.producers if p not in labeller.tape.done
    )
    if "add" in name and producers:
        place = labeller.place(name, result)
        leave_trail(result, Trail(producers, True, place))
    else:
        leave_trail(result, None)


def _tie_operands(
    labeller: Labeller, operands: list[Tensor], given: list[Tensor], dims: int
) -> tuple[Tensor, list[Tensor]]:
    """Ties broadcast operands; returns the ids of the result and each operand's live bits."""
    padded: list[tuple[list[int], Tensor]] = []
    for t, labels in zip(operands, given, strict=True):
        lead = [1] * (dims - t.dim())
        padded.append(([*lead, *t.shape], labels.reshape(lead + list(labels.shape))))
    varying = [max(labels.size(d) for _, labels in padded) for d in range(dims)]
    ids: Tensor | None = None
    lives = []
    for shape, labels in padded:
        mine = labels >> 1
        if _is_one_for_all(shape, labels, varying, [other for _, other in padded]):
            # one value for many channels cannot be cut with any of them
            if labels.numel() > 1 or int(mine.max()) > 0:
                labeller.ids.freeze(mine, "broadcast over channels")
            lives.append(torch.ones_like(labels) if labels.numel() == 1 else labels & 1)
            continue
        if labels.numel() == 1 and math.prod(shape) == 1 and int(mine.max()) == 0:
            lives.append(torch.ones_like(labels))
            continue
        lives.append(labels & 1 | (mine == 0))
        ids = mine if ids is None else _tied(labeller, ids, mine)
    if ids is None:
        ids = padded[0][1] >> 1
    return ids, [_reduced(live, ids) for live in lives]


def _is_one_for_all(
    shape: list[int], labels: Tensor, varying: list[int], others: list[Tensor]
) -> bool:
    """Whether an operand is broadcast over channels: one value for many.

    It is where its size is 1 and labels of others vary, unless those vary along its own channels
    as well: then it is broadcast over positions.
    """
    if not any(size == 1 and v > 1 for size, v in zip(shape, varying, strict=True)):
        return False
    own = [d for d, size in enumerate(labels.shape) if size > 1]
    missing = [d for d, size in enumerate(shape) if size == 1 and varying[d] > 1]
    return not any(
        any(other.size(d) > 1 for d in own) and all(other.size(d) == varying[d] for d in missing)
        for other in others
    )


def _tied(labeller: Labeller, ids: Tensor, more: Tensor) -> Tensor:
    """Ties two tensors of ids; returns the ids of the result.

    They are those of the operand that varies along fewer dimensions, unless it has ids 0: what is
    tied to one channel at every position takes the id of that channel.
    """
    a, b = ids, more
    if a.shape != b.shape:
        a, b = torch.broadcast_tensors(a, b)
    labeller.ids.tie(a, b)
    for one in sorted((more, ids), key=lambda t: sum(size > 1 for size in t.shape)):
        if bool((one > 0).all()):
            return one
    return torch.where(b > 0, b, a)


def _reduced(live: Tensor, ids: Tensor) -> Tensor:
    """Returns `live` reduced to the dimensions of `ids`: live where any element is."""
    dims = [d for d, size in enumerate(live.shape) if size > 1 and ids.size(d) == 1]
    return live.amax(dims, keepdim=True) if dims else live
