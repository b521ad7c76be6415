"""The table of rules: what each torch function does to channel labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prunebench.channels.labels import norms, weights
from prunebench.channels.labels.elementwise import elementwise, unary
from prunebench.channels.labels.labeller import Labeller, Rule
from prunebench.channels.labels.movement import concat, gather, movement, pad, zeros
from prunebench.channels.labels.recurrent import recurrent
from prunebench.channels.labels.tape import Trail, leave_trail, trail_of
from prunebench.channels.labels.tensors import along, labels_of, put
from prunebench.channels.labels.unknown import unknown_function
from prunebench.channels.labels.values import put_values, values_of
from prunebench.channels.tensors import map_tensors, tensors_in
from prunebench.errors import PruningError

_COUNTS = ("size", "numel", "nelement", "__len__")


def no_tensor(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Answers what code asks of a tensor (its shape, say), and notes where it counts channels."""
    result = func(*args, **kwargs)
    if isinstance(result, Tensor):  # x.T, x.data
        if id(args[0]) in labeller.names and _attribute(func) == "data":
            labeller.writes(args[0])
        return movement(labeller, name, func, args, kwargs)
    if name in _COUNTS or name == "__get__" and func.__self__ is Tensor.shape:
        x = args[0]
        labels, dim = labels_of(x), args[1] if len(args) > 1 else kwargs.get("dim")
        counted = labels.size(dim) if isinstance(dim, int) else labels.numel()
        if (counted > 1 or id(x) in labeller.names) and labeller.running not in labeller.standard:
            labeller.tape.fragile = True
    return result


def full(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Makes a filled tensor, with data where the value is known that fills it."""
    given = args
    if name == "new_full":
        like, *given = args
        func, kwargs = torch.full, {"dtype": like.dtype, **kwargs}
    if any(t.is_meta for t in tensors_in([given, kwargs])):
        return unknown_function(labeller, name, func, given, kwargs)
    return func(*given, **kwargs)


def assignment(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Sets an attribute of a tensor (``x.data = y``) that is no parameter or buffer.

    Raises:
        PruningError: the forward replaces the data of a parameter or buffer.
    """
    x = args[0]
    weight = labeller.names.get(id(x))
    if weight is not None and _attribute(func) == "data":
        raise PruningError(
            f"the forward of {labeller.running or 'the network'} replaces the data of {weight}, "
            "and what it puts there does not know of a cut; do so once, before pruning"
        )
    if x.is_meta and weight is None:
        func(x, *map_tensors(args[1:], labeller.meta), **kwargs)
        if isinstance(args[-1], Tensor) and name == "__set__":
            put(x, labeller.labels(args[-1]))
    return x if name != "__set__" else None


def _attribute(func: Any) -> str:
    """Returns the name of the attribute that ``__get__`` or ``__set__`` is called for."""
    return str(getattr(getattr(func, "__self__", None), "__name__", ""))


def decision(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Answers what code asks of a constant.

    Raises:
        PruningError: the forward asks for a value that depends on its input.
    """
    if args[0].is_meta:
        raise PruningError(
            f"the forward of {labeller.running or 'the network'} asks for the value of a tensor "
            f"({name}), so it may take another path for another image; channels cannot be traced"
        )
    return func(*args, **kwargs)


def dropout(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Carries labels over, but with new value numbers: training mode changes the elements."""
    return same(labeller, name, func, args, kwargs)


def same(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Carries labels over unchanged: the same elements under another dtype or layout."""
    x = args[0]
    result = labeller.run(func, args, kwargs)
    if not isinstance(result, Tensor):
        return result
    trail = trail_of(x)
    if trail is not None:
        leave_trail(result, trail)
    return put_values(put(result, labeller.labels(x)), values_of(x))


def pool(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Carries channel labels over; freezes labels that lie on the pooled dimensions."""
    x = args[0]
    labels = labeller.labels(x)
    spatial = int(next((d for d in "123" if f"{d}d" in name), "2"))
    result = _pooled(labeller, name, func, args, kwargs, spatial)
    out = result[0] if isinstance(result, (tuple, list)) else result
    if name in ("interpolate", "upsample"):
        spatial = x.dim() - 2
        if not x.numel():  # an error that torch does not raise without data
            raise RuntimeError("no channel is left to it")
    dim = x.dim() - spatial - 1
    if dim >= 0 and labels.size(dim) == x.size(dim) and labels.numel() > labels.size(dim):
        # a channel has several labels (behind a bias per position): they are cut together
        row = labeller.row(labels, dim, x.size(dim))
        labels = labels if row is None else along(row.ids * 2 + row.live, dim, x.dim())
    if any(size > 1 for size in labels.shape[-spatial:]):  # or no spatial dimension at all
        labeller.ids.freeze(labels >> 1, f"{name} over a dimension that holds channels")
        labels = labels_of(out)
    for one in tensors_in(result):  # the indices of a max pool are laid out as its result
        put(one, labels)
    trail = trail_of(x)
    if trail is not None and name.startswith("max_pool"):
        place = labeller.place(name, out)
        labeller.tape.blocks |= dict.fromkeys(trail.producers, place)
        leave_trail(out, Trail((), trail.raw, place))
    return result


def _pooled(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any, spatial: int) -> Any:
    """Runs a pool without data; global average pools without torch, which is slow at them."""
    x, size = args[0], args[1] if len(args) > 1 else kwargs.get("output_size")
    single = name.startswith("adaptive_avg") and (size == 1 or size == (1,) * spatial)
    if not (single and x.numel() and 0 < x.dim() - spatial <= 2 and x.is_floating_point()):
        return labeller.run(func, args, kwargs)
    return torch.empty((*x.shape[:-spatial], *[1] * spatial), dtype=x.dtype, device="meta")


def pixel_shuffle(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Ties the channels that become one channel, which takes the label of the first."""
    x, factor = args[0], args[1] if len(args) > 1 else kwargs["upscale_factor"]
    dim = x.dim() - 3
    row = labeller.row(labeller.labels(x), dim, x.size(dim))
    if row is None:
        return unknown_function(labeller, name, func, args, kwargs)
    parts = row.ids.view(-1, factor**2)
    first = parts[:, :1]
    labeller.ids.tie(first.expand_as(parts), parts)
    labels = first[:, 0] * 2 + row.live.view(-1, factor**2).amax(1)
    return put(labeller.run(func, args, kwargs), along(labels, dim, x.dim()))


def unpool(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Ties the channels of the input to those of the indices that place it."""
    result = labeller.run(func, args, kwargs)
    x, places = args[0], args[1] if len(args) > 1 else kwargs["indices"]
    mine, theirs = labeller.labels(x), labels_of(places)
    if mine.shape != theirs.shape or mine.numel() != mine.size(-int(name[-2]) - 1):
        labeller.ids.freeze(
            torch.cat([mine.reshape(-1), theirs.reshape(-1)]) >> 1, f"{name} of others"
        )
        return result
    labeller.ids.tie(mine >> 1, theirs >> 1)
    return put(result, mine)


def reduction(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Drops dimensions; summing over one that holds channels ties or freezes them."""
    x = args[0]
    labels = labeller.labels(x)
    result = labeller.run(func, args, kwargs)
    dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis"))
    if isinstance(dim, Tensor) or "other" in kwargs:  # the larger of two tensors
        return elementwise(labeller, name, func, args, kwargs)
    dims = range(x.dim()) if dim is None else [dim] if isinstance(dim, int) else dim
    dims = sorted({d % x.dim() for d in dims})
    outs = list(tensors_in(result))
    keepdim = outs[0].dim() == x.dim()
    labels = _across(labeller, labels, dims, name)
    for d in reversed(dims):
        labels = labels.narrow(d, 0, 1) if keepdim else labels.select(d, 0)
    for out in outs:
        put(out, labels)
    return result


def _across(labeller: Labeller, labels: Tensor, dims: list[int], name: str) -> Tensor:
    """Ties or freezes labels along `dims`; returns labels that no longer change there."""
    mixed = [d for d in dims if labels.size(d) > 1]
    if not mixed:
        return labels
    found = any(labels.size(d) > 1 for d in range(labels.dim()) if d not in mixed)
    if not labeller.ids.elsewhere(mixed[0], found=found):
        labeller.ids.freeze(labels >> 1, f"{name} over channels")
        return torch.zeros([1] * labels.dim(), dtype=torch.int64)
    first = labels
    for d in mixed:
        first = first.narrow(d, 0, 1)
    ids, all_ids = torch.broadcast_tensors(first >> 1, labels >> 1)
    labeller.ids.tie(ids, all_ids)
    return first


def softmax(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Ties or freezes channels that a softmax mixes; others pass, no longer zero when cut."""
    x = args[0]
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    if dim is None:
        return unknown_function(labeller, name, func, args, kwargs)
    labels = _across(labeller, labeller.labels(x), [dim % x.dim()], name)
    return put(labeller.run(func, args, kwargs), labels | 1)


_FUNCTIONS: dict[Rule, str] = {
    no_tensor: "__get__ size dim numel stride is_floating_point is_contiguous __len__"
    " ndimension element_size get_device is_complex nelement data_ptr __hash__ _is_view"
    " storage_offset __repr__ __format__ is_same_size is_tensor result_type",
    decision: "item tolist __bool__ __int__ __float__ __index__ numpy equal allclose any all"
    " __contains__",
    full: "full new_full",
    assignment: "__set__ requires_grad_",
    same: "contiguous clone detach to type float half double bfloat16 type_as cpu cuda"
    " alias_copy to_memory_format _assert",
    dropout: "dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout"
    " feature_alpha_dropout stochastic_depth",
    pool: "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d"
    " adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d"
    " adaptive_max_pool2d adaptive_max_pool3d lp_pool1d lp_pool2d interpolate upsample"
    " max_pool1d_with_indices max_pool2d_with_indices adaptive_max_pool2d_with_indices",
    pixel_shuffle: "pixel_shuffle",
    unpool: "max_unpool1d max_unpool2d max_unpool3d",
    unary: "relu relu_ relu6 hardtanh hardtanh_ hardswish hardsigmoid silu gelu elu elu_ selu"
    " selu_ celu celu_ leaky_relu leaky_relu_ sigmoid sigmoid_ tanh tanh_ softplus softsign"
    " mish logsigmoid hardshrink softshrink tanhshrink threshold threshold_ rrelu abs sqrt exp"
    " log rsqrt square neg __neg__ sin cos erf clamp clamp_ clip reciprocal round floor ceil"
    " sign log1p expm1 _threshold nan_to_num silu_ mish_ hardswish_ exp_ sqrt_ clamp_min"
    " clamp_max"
    " zeros_like ones_like full_like __abs__",
    elementwise: "add add_ __add__ __radd__ __iadd__ sub sub_ __sub__ __rsub__ __isub__ rsub"
    " mul mul_ __mul__ __rmul__ __imul__ multiply div div_ __truediv__ __rtruediv__"
    " __itruediv__ __div__ true_divide divide maximum minimum pow __pow__ __rpow__ where lerp"
    " addcmul addcdiv subtract fmod remainder __mod__ __floordiv__ floor_divide"
    " __gt__ __lt__ __ge__ __le__ __eq__ __ne__ gt lt ge le eq ne logical_and logical_or"
    " masked_fill",
    movement: "view reshape permute transpose t flatten unflatten squeeze unsqueeze chunk split"
    " tensor_split unbind narrow select index_select __getitem__ stack roll flip"
    " pixel_unshuffle channel_shuffle native_channel_shuffle movedim moveaxis swapaxes swapdims"
    " expand expand_as view_as reshape_as repeat repeat_interleave tile hsplit vsplit"
    " split_with_sizes rot90 fliplr flipud channel_unshuffle adjoint ravel squeeze_ unsqueeze_"
    " gather take_along_dim diagonal",
    concat: "cat concat concatenate",
    zeros: "zeros new_zeros",
    pad: "pad constant_pad_nd",
    gather: "gather_channels",
    reduction: "mean sum amax amin max min var std nanmean prod",
    softmax: "softmax log_softmax _softmax",
    weights.conv: "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d",
    weights.linear: "linear",
    weights.weight_norm: "_weight_norm",
    recurrent: "lstm gru rnn_tanh rnn_relu",
    norms.batch_norm: "batch_norm instance_norm",
    norms.layer_norm: "layer_norm rms_norm",
    norms.group_norm: "group_norm",
    norms.prelu: "prelu",
}

# moves: the result has no new numbers, so that the call is no step
for _rule in (no_tensor, same, movement, concat, pad, gather):
    _rule.moves = True  # type: ignore[attr-defined]
# spatial: numbers in the call (kernel sizes, dimensions) say nothing of channels
for _rule in (pool, pixel_shuffle, unpool, reduction, softmax, dropout):
    _rule.spatial = True  # type: ignore[attr-defined]
# sizes: numbers in the call count channels or groups, so that a cut rightly changes them
for _rule in (zeros, weights.conv, norms.layer_norm, norms.group_norm):
    _rule.sizes = True  # type: ignore[attr-defined]

#: name of a torch function -> its rule; "" -> the rule of all that are unknown
RULES: dict[str, Rule] = {
    "": unknown_function,
    **{word: rule for rule, words in _FUNCTIONS.items() for word in words.split()},
}

#: functions that only move data, or ask for shapes
MOVES = frozenset(
    [name for name, rule in RULES.items() if rule in (movement, pad, no_tensor, zeros)]
    + ["getitem", "getattr", "contiguous", "clone", "detach", "to", "type_as"]
)
