"""Label rules of norms and PReLU: functions with a vector of one number per channel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prunebench.channels.labels.elementwise import unary
from prunebench.channels.labels.labeller import Labeller
from prunebench.channels.labels.steps import bind
from prunebench.channels.labels.tape import Call, Trail, leave_trail, owner, trail_of
from prunebench.channels.labels.tensors import labels_of, put, row_of
from prunebench.channels.labels.weights import refuse


def _norm(
    labeller: Labeller, name: str, x: Tensor, dim: int, vectors: list[Any], groups: int
) -> Tensor:
    """Assigns the vectors of a norm to the channels along `dim`; returns the new labels."""
    labels = labeller.labels(x)
    row = labeller.row(labels, dim, x.size(dim))
    vectors = [v for v in vectors if isinstance(v, Tensor)]
    named = [labeller.names[id(v)] for v in vectors if id(v) in labeller.names]
    if row is None or len(named) < len(vectors):
        refuse(labeller, labels, "its channels cannot be told apart")
        return labels_of(torch.empty([1] * x.dim()))
    ids = row.ids
    for vector in named:
        labeller.ids.read(vector, 0, ids)
    if named:
        place = labeller.place(name, x, takes=True)
        labeller.tape.calls.append(
            Call("norm", owner(named[0]), named[0], ids, row.live, ids, 0, groups, place)
        )
    else:
        labeller.tape.unweighted.append((labeller.running, ids, groups))
    return labels


def _normed(labeller: Labeller, name: str, x: Tensor, labels: Tensor, *, affine: bool) -> Tensor:
    """Returns the result of a norm; the masked affine part makes cut channels zero again."""
    result = torch.empty(x.shape, dtype=x.dtype, device="meta")
    if not (affine and row_of(labels).plain):
        labels = labels >> 1 << 1 if affine else labels | 1
    put(result, labels)
    trail = trail_of(x)
    if trail is not None and trail.raw:
        place = labeller.place(name, result)
        labeller.tape.pass_on(trail, place)
        leave_trail(result, Trail(trail.producers, True, place))
    return result


def batch_norm(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Assigns the per-channel vectors of a batch norm to the channels of its input."""
    given = bind("input running_mean running_var weight bias", args, kwargs)
    x = given["input"]
    vectors = [given.get(key) for key in ("weight", "bias", "running_mean", "running_var")]
    labels = _norm(labeller, name, x, 1, vectors, 1)
    return _normed(labeller, name, x, labels, affine=given.get("weight") is not None)


def layer_norm(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Assigns the affine vectors to channels; statistics are taken over surviving channels."""
    given = bind("input normalized_shape weight bias", args, kwargs)
    x, weight, normalized = given["input"], given.get("weight"), tuple(given["normalized_shape"])
    labels = labeller.labels(x)
    over = len(normalized)
    if normalized != tuple(x.shape[-over:]):
        raise RuntimeError(f"normalized_shape {normalized} does not fit {tuple(x.shape)}")
    if all(size == 1 for size in labels.shape[-over:]):  # mixes positions within each channel
        return put(torch.empty(x.shape, dtype=x.dtype, device="meta"), labels | 1)
    if over > 1 or weight is None:
        refuse(labeller, labels, "a layer norm without one weight per channel")
        return torch.empty(x.shape, dtype=x.dtype, device="meta")
    labels = _norm(labeller, name, x, x.dim() - 1, [weight, given.get("bias")], 1)
    return _normed(labeller, name, x, labels, affine=True)


def group_norm(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Like batch norm; also ties the k-th channels of all groups, which are cut together."""
    given = bind("input num_groups weight bias", args, kwargs)
    x, groups, weight = given["input"], given["num_groups"], given.get("weight")
    row = labeller.row(labeller.labels(x), 1, x.size(1))
    if weight is None and groups < x.size(1):
        refuse(labeller, labeller.labels(x), "a group norm without one weight per channel")
        return torch.empty(x.shape, dtype=x.dtype, device="meta")
    noted = (
        ""
        if weight is None
        else labeller.grouped.get(owner(labeller.names.get(id(weight), "")), "")
    )
    if row is not None and groups > 1 and (groups < x.size(1) or noted == "position"):
        ids = row.ids.reshape(groups, -1)
        labeller.ids.tie(ids[:1].expand_as(ids), ids)
    labels = _norm(labeller, name, x, 1, [weight, given.get("bias")], groups)
    return _normed(labeller, name, x, labels, affine=weight is not None)


def prelu(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Follows an activation with one slope per channel, or one for all."""
    given = bind("input weight", args, kwargs)
    x, slope = given["input"], given["weight"]
    if slope.numel() > 1:
        labels = _norm(labeller, name, x, 1, [slope], 1)
        put(x, labels)
    return unary(labeller, name, torch.relu, (x,), {})
