"""What each torch function does to channel labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from prunebench.channels import weights
from prunebench.channels.labels import (
    Call,
    Labeller,
    Trail,
    along,
    labels_of,
    map_tensors,
    put,
    shrink,
    tensors_in,
)
from prunebench.errors import PruningError

Rule = Callable[[Labeller, str, Any, tuple[Any, ...], dict[str, Any]], Any]


def unknown(run: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Freezes every channel that goes in: what cannot be followed is never guessed."""
    for t in tensors_in([args, kwargs]):
        if id(t) in run.names:
            if run.names[id(t)] in run.tape.free:
                run.freeze(run.tape.free[run.names[id(t)]], f"unknown operation {name}")
        else:
            run.freeze(labels_of(t) >> 1, f"unknown operation {name}")
            put(t, torch.zeros([1] * t.dim(), dtype=torch.int64))  # it may be changed in place
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        result = run.run(func, args, kwargs)
    run.tape.fixed_macs += counter.get_total_flops() // 2
    return result


def no_tensor(run: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Asks a tensor for something that is no tensor (its shape, say)."""
    result = func(*args, **kwargs)
    if isinstance(result, Tensor):  # x.T, x.data
        return movement(run, name, func, args, kwargs)
    return result


def decision(run: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Refuses to follow a forward that asks for a value which depends on the input."""
    if args[0].is_meta:
        raise PruningError(
            f"the forward of {run.stack[-1] or 'the network'} asks for the value of a tensor "
            f"({name}), so it may take another path for another image; channels cannot be traced"
        )
    return func(*args, **kwargs)


def same(run: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Carries labels over unchanged: the same elements under another dtype, layout or dropout."""
    x = args[0]
    result = run.run(func, args, kwargs)
    if not isinstance(result, Tensor):
        return result
    trail = getattr(x, "_channel_trail", None)
    if trail is not None:
        result._channel_trail = trail  # type: ignore[attr-defined]
    return put(result, run.labels(x))


def pool(run: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Carries channel labels over; freezes labels that lie on the pooled dimensions."""
    x = args[0]
    labels = run.labels(x)
    result = run.run(func, args, kwargs)
    out = result[0] if isinstance(result, (tuple, list)) else result
    spatial = int(next((d for d in "123" if f"{d}d" in name), "2"))
    if name in ("interpolate", "upsample"):
        spatial = x.dim() - 2
    if any(size > 1 for size in labels.shape[-spatial:]):  # or no spatial dimension at all
        run.freeze(labels >> 1, f"{name} over a dimension that holds channels")
        labels = labels_of(out)
    put(out, labels)
    trail = getattr(x, "_channel_trail", None)
    if trail is not None and name.startswith("max_pool"):
        place = run.place(name, out)
        _settle(run.tape.blocks, trail, place, ())
        out._channel_trail = Trail((), trail.raw, place)
    return result


def _settle(points: dict[str, Any], trail: Trail, place: Any, done: Any) -> None:
    """Notes `place` as a point of every producer of `trail` that is not done."""
    for producer in trail.producers:
        if producer not in done:
            points[producer] = place


# -- element by element --------------------------------------------------------------------------

_ZEROS: dict[tuple[Any, ...], bool] = {}


def _moves_zero(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether `func` makes something else than zero out of zeros."""
    if kwargs.get("inplace"):
        kwargs = {key: value for key, value in kwargs.items() if key != "inplace"}
    key = (func, str(map_tensors([args, kwargs], lambda t: 0)))
    if key not in _ZEROS:
        zeros = map_tensors([args, kwargs], lambda t: torch.zeros((1,) * max(1, t.dim())))
        try:
            result = func(*zeros[0], **zeros[1])
            _ZEROS[key] = bool((result != 0).any())
        except (RuntimeError, TypeError, IndexError, ValueError):
            _ZEROS[key] = True
    return _ZEROS[key]


def unary(run: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Carries labels over through an activation; a cut channel stays zero only if f(0) = 0."""
    x = args[0] if args else kwargs["input"]
    labels = run.labels(x)
    inplace = name.endswith("_") or kwargs.get("inplace") or any(a is True for a in args[1:])
    result: Any = x if inplace else torch.empty(x.shape, dtype=x.dtype, device="meta")
    if labels.numel() and _moves_zero(func, args, kwargs):
        labels = labels | 1
    put(result, labels)
    trail = getattr(x, "_channel_trail", None)
    if trail is not None:
        place = run.place(name, result)
        if trail.raw:
            _settle(run.tape.activations, trail, place, run.tape.done)
            _settle(run.tape.blocks, trail, place, run.tape.done)
            run.tape.done.update(trail.producers)
        result._channel_trail = Trail(trail.producers, False, place)
    return result


def elementwise(run: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Ties the channels of the operands position by position."""
    operands = [t for t in tensors_in([args, kwargs]) if t.dim() > 0]
    if not operands:
        return run.run(func, args, kwargs)
    shape = torch.broadcast_shapes(  # type: ignore[no-untyped-call]
        *(t.shape for t in operands)
    )
    inplace = name.endswith("_") and not name.endswith("__") or name.startswith("__i")
    if inplace and isinstance(args[0], Tensor) and args[0].is_meta:
        result = args[0]
    elif all(t.dtype == operands[0].dtype for t in operands) and name in _SAME_TYPE:
        result = torch.empty(shape, dtype=operands[0].dtype, device="meta")
    else:
        result = run.run(func, args, kwargs)
    labels = _tie_operands(run, operands, len(shape))
    ids, live = labels
    if any(key in name for key in ("mul", "div")):
        flags = live[:1] if "div" in name and operands[0] is args[0] else live
        _note_gates(run, operands, live)
        flag = flags[0]
        for other in flags[1:]:
            flag = flag & other
    else:
        flag = live[0]
        for other in live[1:]:
            flag = flag | other
        if any(_fixed(run, t) for t in operands) or _moves_zero(func, args, kwargs):
            flag = torch.ones_like(flag)
    put(result, ids * 2 + flag)
    _add_trails(run, name, operands, result)
    return result


def _note_gates(run: Labeller, operands: list[Tensor], live: list[Tensor]) -> None:
    """Notes which operands only scale the others: they do not vanish by themselves."""
    if len(operands) == 2 and bool(live[0].all()) != bool(live[1].all()):
        gate = operands[0] if bool(live[0].all()) else operands[1]
        run.tape.gates.append(run.labels(gate).reshape(-1) >> 1)


def _fixed(run: Labeller, t: Tensor) -> bool:
    """Whether `t` is a constant of the forward, which does not vanish with any channel."""
    return not hasattr(t, "_channel_labels") and id(t) not in run.names


def _add_trails(run: Labeller, name: str, operands: list[Tensor], result: Tensor) -> None:
    """Lets a sum of fresh outputs count as fresh, so that its activation is theirs."""
    trails = [t for t in (getattr(o, "_channel_trail", None) for o in operands) if t is not None]
    producers = tuple(p for t in trails if t.raw for p in t.producers if p not in run.tape.done)
    if "add" in name and producers:
        place = run.place(name, result)
        result._channel_trail = Trail(producers, True, place)  # type: ignore[attr-defined]
    elif hasattr(result, "_channel_trail"):
        del result._channel_trail


def _tie_operands(run: Labeller, operands: list[Tensor], dims: int) -> tuple[Tensor, list[Tensor]]:
    """Ties broadcast operands; returns the ids of the result and each operand's live bits."""
    padded: list[tuple[list[int], Tensor]] = []
    for t in operands:
        lead = [1] * (dims - t.dim())
        labels = run.labels(t)
        padded.append(([*lead, *t.shape], labels.reshape(lead + list(labels.shape))))
    varying = [max(labels.size(d) for _, labels in padded) for d in range(dims)]
    ids: Tensor | None = None
    lives = []
    for shape, labels in padded:
        mine = labels >> 1
        if any(size == 1 and v > 1 for size, v in zip(shape, varying, strict=True)):
            # one value for all channels: it cannot be cut with any of them
            if labels.numel() > 1 or int(mine.max()) > 0:
                run.freeze(mine, "broadcast over channels")
            lives.append(torch.ones_like(labels) if labels.numel() == 1 else labels & 1)
            continue
        if labels.numel() == 1 and math.prod(shape) == 1 and int(mine.max()) == 0:
            lives.append(torch.ones_like(labels))
            continue
        lives.append(labels & 1 | (mine == 0))
        if ids is None:
            ids = mine
        elif ids is not mine:
            a, b = torch.broadcast_tensors(ids, mine)  # type: ignore[no-untyped-call]
            run.tie(a, b)
            ids = a if a.numel() > mine.numel() else torch.where(b > 0, b, a)
    if ids is None:
        ids = padded[0][1] >> 1
    return ids, lives


# -- data movement -------------------------------------------------------------------------------


def movement(run: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Moves the labels by the same function as the data."""
    given = list(tensors_in([args, kwargs]))
    sources = [t for t in given if t.is_floating_point() or _labelled(t)]
    if len(sources) < len(given) and _opaque(run, sources, given):
        return unknown(run, name, func, args, kwargs)
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
    moved = func(
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


def _labelled(t: Tensor) -> bool:
    return hasattr(t, "_channel_labels")


def concat(run: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Concatenates labels; zeros made in the forward get labels of their own."""
    parts = list(args[0] if args else kwargs.get("tensors"))
    dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
    parts = [t for t in parts if not (t.dim() == 1 and t.numel() == 0)]
    dim %= parts[0].dim()
    shape = list(parts[0].shape)
    shape[dim] = sum(t.size(dim) for t in parts)
    result = torch.empty(shape, dtype=parts[0].dtype, device="meta")
    labels = []
    for t in parts:
        one = run.labels(t)
        if getattr(t, "_channel_zeros", False):
            one = (
                run.new_zeros(t.size(dim)).view([-1 if d == dim else 1 for d in range(t.dim())]) * 2
            )
            run.tape.fragile = True
        labels.append(one)
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
    """Remembers that a tensor made in the forward holds zeros."""
    result = run.run(func, args, {**kwargs, "device": "meta"})
    result._channel_zeros = True
    return result


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
            run.freeze(labels >> 1, f"padded with {mode} along channels")
            labels = labels_of(result)
            break
        view = [-1 if d == dim else 1 for d in range(x.dim())]
        sides = [run.new_zeros(n).view(view) * 2 for n in (before, after)]
        labels = torch.cat([sides[0], labels, sides[1]], dim)
    if value:
        labels = labels | 1
    return put(result, labels)


def gather(run: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Picks labels by a `GatherChannels` index; missing ones get labels of their own."""
    x, index, dim = args
    labels = run.labels(x)
    shape = list(x.shape)
    positions = torch.tensor(run.gathers[id(index)])
    shape[dim] = len(positions)
    result = torch.empty(shape, dtype=x.dtype, device="meta")
    row = along(labels, dim, x.size(dim))
    if row is None:
        run.freeze(labels >> 1, "a gather over mixed channels")
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
    run.read(run.names[id(index)], 0, picked >> 1)
    run.read(run.names[id(index)] + "/from", 0, row >> 1)
    run.note(call)
    return put(result, picked.view([-1 if d == dim else 1 for d in range(x.dim())]))


# -- along a dimension ---------------------------------------------------------------------------


def reduction(run: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Drops dimensions; summing over one that holds channels ties or freezes them."""
    x = args[0] if args else kwargs["input"]
    labels = run.labels(x)
    result = run.run(func, args, kwargs)
    dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis"))
    if isinstance(dim, Tensor):
        return elementwise(run, name, func, args, kwargs)
    keepdim = kwargs.get("keepdim", bool(len(args) > 2 and args[2] is True))
    dims = range(x.dim()) if dim is None else [dim] if isinstance(dim, int) else dim
    dims = sorted({d % x.dim() for d in dims})
    outs = list(tensors_in(result))
    labels = _across(run, labels, dims, name)
    for d in reversed(dims):
        labels = labels.narrow(d, 0, 1) if keepdim else labels.select(d, 0)
    for out in outs:
        put(out, labels)
    return result


def _across(run: Labeller, labels: Tensor, dims: list[int], name: str) -> Tensor:
    """Ties or freezes labels along `dims`; returns labels that no longer change there."""
    mixed = [d for d in dims if labels.size(d) > 1]
    if not mixed:
        return labels
    kept = [d for d in range(labels.dim()) if d not in mixed and labels.size(d) > 1]
    if not kept:
        run.freeze(labels >> 1, f"{name} over channels")
        return torch.zeros([1] * labels.dim(), dtype=torch.int64)
    first = labels
    for d in mixed:
        first = first.narrow(d, 0, 1)
    ids, all_ids = torch.broadcast_tensors(  # type: ignore[no-untyped-call]
        first >> 1, labels >> 1
    )
    run.tie(ids, all_ids)
    return first


def softmax(run: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Freezes channels that a softmax mixes; others pass, no longer zero when cut."""
    x = args[0] if args else kwargs["input"]
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    if dim is None:
        return unknown(run, name, func, args, kwargs)
    labels = _across(run, run.labels(x), [dim % x.dim()], name)
    return put(run.run(func, args, kwargs), labels | 1)


def _names() -> dict[str, Rule]:
    """Returns the rule of every function that is known."""
    table: dict[Rule, str] = {
        no_tensor: "__get__ size dim numel stride is_floating_point is_contiguous __len__"
        " ndimension element_size get_device is_complex nelement data_ptr __hash__ _is_view"
        " storage_offset __repr__ __format__ is_same_size is_tensor __set__ result_type requires_grad_",
        decision: "item tolist __bool__ __int__ __float__ __index__ numpy equal allclose any all"
        " __contains__",
        same: "contiguous clone detach to type float half double bfloat16 type_as cpu cuda"
        " alias_copy dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout"
        " feature_alpha_dropout stochastic_depth to_memory_format _assert",
        pool: "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d"
        " adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d"
        " adaptive_max_pool2d adaptive_max_pool3d lp_pool1d lp_pool2d interpolate upsample"
        " max_pool1d_with_indices max_pool2d_with_indices adaptive_max_pool2d_with_indices",
        unary: "relu relu_ relu6 hardtanh hardtanh_ hardswish hardsigmoid silu gelu elu elu_ selu"
        " selu_ celu celu_ leaky_relu leaky_relu_ sigmoid sigmoid_ tanh tanh_ softplus softsign"
        " mish logsigmoid hardshrink softshrink tanhshrink threshold threshold_ rrelu abs sqrt exp"
        " log rsqrt square neg __neg__ sin cos erf clamp clamp_ clip reciprocal round floor ceil"
        " sign log1p expm1 _threshold nan_to_num silu_ mish_ hardswish_ exp_ sqrt_ clamp_min clamp_max"
        " zeros_like ones_like full_like __abs__",
        elementwise: "add add_ __add__ __radd__ __iadd__ sub sub_ __sub__ __rsub__ __isub__ rsub"
        " mul mul_ __mul__ __rmul__ __imul__ multiply div div_ __truediv__ __rtruediv__"
        " __itruediv__ __div__ true_divide divide maximum minimum pow __pow__ __rpow__ where lerp"
        " addcmul addcdiv subtract fmod remainder __mod__ __floordiv__ floor_divide"
        " __gt__ __lt__ __ge__ __le__ __eq__ __ne__ gt lt ge le eq ne logical_and logical_or"
        " masked_fill",
        movement: "view reshape permute transpose t flatten unflatten squeeze unsqueeze chunk split"
        " tensor_split unbind narrow select index_select __getitem__ stack roll flip pixel_shuffle"
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
        weights.batch_norm: "batch_norm instance_norm",
        weights.layer_norm: "layer_norm rms_norm",
        weights.group_norm: "group_norm",
        weights.prelu: "prelu",
    }
    return {word: rule for rule, words in table.items() for word in words.split()}


_SAME_TYPE = (
    "add",
    "__add__",
    "__radd__",
    "sub",
    "__sub__",
    "mul",
    "__mul__",
    "div",
    "__truediv__",
)

RULES: dict[str, Rule] = _names()

#: moves that ask for no number of channels, so that they hold after any cut
_BY_ORDER = ["flatten", "permute", "transpose", "t", "unsqueeze", "stack", "movedim", "__get__"]

#: functions that only move data, or ask for shapes
MOVES = frozenset(
    [name for name, rule in RULES.items() if rule in (movement, pad, no_tensor, zeros)]
    + ["getitem", "getattr", "contiguous", "clone", "detach", "to", "type_as"]
)
