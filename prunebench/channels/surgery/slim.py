"""Cuts channels out of a network: selects indices of its parameters, then fits attributes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from prunebench.channels.followable import plain
from prunebench.channels.gather import GatherChannels
from prunebench.channels.labels.tape import Call, owner
from prunebench.channels.map import ChannelMap, Kept
from prunebench.channels.members import named_modules, named_tensors
from prunebench.channels.plan import Plan
from prunebench.channels.surgery.copying import copied
from prunebench.channels.surgery.insert_gathers import gathers_for
from prunebench.channels.surgery.own_weights import leads_out, require_own_weights
from prunebench.channels.tensors import is_plain
from prunebench.errors import PruningError

#: parameter or buffer -> (dimension, indices that stay) for each dimension that loses some
Positions = dict[str, list[tuple[int, Tensor]]]
BLOCK = 1 << 18  # elements that are cut at a time
#: modules of torch whose hooks compute a weight or bias before each forward
RENEWING = ("torch.nn.utils.weight_norm", "torch.nn.utils.prune")


def slim(model: nn.Module, cmap: ChannelMap, plan: Plan) -> nn.Module:
    """Returns a copy of `model` without the channels that `plan` drops.

    Weights are copied, never viewed; `model` itself is left untouched. Names, shared parameters,
    ``requires_grad``, training flags, dtype, device and memory format stay as they are. Where the
    code of the network moves channels by fixed numbers, the copy is a `torch.fx.GraphModule` with
    `GatherChannels` in the right places. Works on the meta device, too.

    Args:
        model: the network that `cmap` was traced from.
        cmap: its channel map.
        plan: what to keep; missing groups keep everything.

    Raises:
        PruningError: the plan does not fit, a layer would be left without inputs (one that reads a
            part of several groups), the network moves channels in a way that cannot follow the cut,
            or the copy would run the weights of `model`.
    """
    model = plain(model)
    cmap.check(plan)
    kept = cmap.keeps(plan)
    _require_channels(cmap, kept)
    slimmed = keep_only(model, cmap, kept)
    if not kept.all() and (cmap.tape.fragile or _empties(cmap, kept)):
        slimmed = gathers_for(model, slimmed, cmap, kept).finish()
    if leads_out(model):
        require_own_weights(slimmed, model, cmap, kept)
    return slimmed


def _require_channels(cmap: ChannelMap, kept: Kept) -> None:
    """Raises if a layer is left without channels, as one that reads parts of groups may be.

    Gathers may be left without; a layer that reads nothing else raises then.
    """
    gathers = {call.weight for call in cmap.tape.calls if call.kind == "gather"}
    checked: set[int] = set()  # dimensions with the same label ids share one array
    for (name, dim), classes in cmap.dims.items():
        if name in gathers or id(classes) in checked:
            continue
        checked.add(id(classes))
        if not kept[classes].any():
            layer, role = owner(name), "read" if dim else "make"
            raise PruningError(
                f"the plan leaves {layer} no channel to {role}, for none that reaches it stays; "
                "keep more (budget.keep, budget.floor) or leave a group out (budget.exclude)"
            )


def _empties(cmap: ChannelMap, kept: Kept) -> bool:
    """Whether a gather loses all inputs or outputs, so that code behind it may fail."""
    return any(
        call.kind == "gather" and not kept[cmap.classes(ids)].any()
        for call in cmap.tape.calls
        for ids in (call.inputs, call.outputs)
    )


def keep_only(model: nn.Module, cmap: ChannelMap, kept: Kept) -> nn.Module:
    """Returns a copy of `model` whose parameters hold only the classes in `kept`."""
    positions = _positions(cmap, kept)
    memo: dict[int, Tensor] = {}
    with torch.no_grad():
        for name, tensor in named_tensors(model):
            where = positions.get(name, [])
            memo[id(tensor)] = made = like(tensor, _cut_tensor(tensor, where))
            _carry_notes(tensor, made, where)
        _keep_lengths(model, cmap, positions, memo)
    slimmed = copied(model, memo)
    for call in cmap.tape.calls:
        if call.kind == "gather":
            _cut_gather(slimmed.get_submodule(call.module), call, cmap, kept)
    owners = _owners(slimmed)
    for call in cmap.tape.calls:
        if call.kind == "depthwise" or (call.groups > 1 and call.kind in ("conv", "norm")):
            for module in owners[call.weight]:
                _fit_groups(module, call, kept[cmap.classes(call.inputs)])
    for module in {module for name in positions for module in owners[name]}:
        _compute_weights(module)
        _fit_attributes(module)
    for path, ids, groups in cmap.tape.unweighted:
        left = int(kept[cmap.classes(ids)].sum())
        _fit_unweighted(slimmed.get_submodule(path), left, groups)
    return slimmed


def _keep_lengths(
    model: nn.Module, cmap: ChannelMap, positions: Positions, cut: dict[int, Tensor]
) -> None:
    """Shortens the lengths of weight norms as their directions, so that weights stay equal."""
    if not cmap.tape.normed:
        return
    named = dict(named_tensors(model))
    for name, norm in cmap.tape.normed.items():
        if name in positions:
            direction, lengths = cut[id(named[name])], cut[id(named[norm.lengths])]
            whole = _cut_tensor(norm.lengths_of(named[name]), positions.get(norm.lengths, []))
            norm.set(direction, lengths, lengths * (norm.lengths_of(direction) / whole))


def _positions(cmap: ChannelMap, kept: Kept) -> Positions:
    """Returns the indices that stay, of every dimension that loses some."""
    found: dict[int, Tensor | None] = {}  # dimensions with the same label ids share one array
    positions: Positions = {}
    for (name, dim), classes in cmap.dims.items():
        if id(classes) not in found:
            stays = kept[classes]
            found[id(classes)] = None if stays.all() else torch.from_numpy(stays.nonzero()[0])
        index = found[id(classes)]
        if index is not None:
            positions.setdefault(name, []).append((dim, index))
    return positions


def _owners(model: nn.Module) -> dict[str, list[nn.Module]]:
    """Returns name of a parameter or buffer -> every layer that owns it."""
    held: dict[int, tuple[str, list[nn.Module]]] = {}
    for path, module in named_modules(model):
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None:
                full = f"{path}.{name}" if path else name
                computes = isinstance(module, ParametrizationList)
                of = model.get_submodule(owner(full)) if computes else module
                held.setdefault(id(tensor), (full, []))[1].append(of)
    return dict(held.values())


def _cut_tensor(tensor: Tensor, positions: list[tuple[int, Tensor]]) -> Tensor:
    """Returns a copy of `tensor` with only some indices of some dimensions."""
    if not positions:
        return tensor.detach().clone()
    if tensor.is_meta:
        shape = list(tensor.shape)
        for dim, index in positions:
            shape[dim] = len(index)
        return torch.empty(shape, dtype=tensor.dtype, device="meta")
    if len(positions) == 2 and tensor.numel() >= 2 * BLOCK and tensor.device.type == "cpu":
        return _cut_both(tensor, dict(positions))
    for dim, index in sorted(positions, key=lambda item: item[0]):
        tensor = tensor.index_select(dim, index.to(tensor.device))
    return tensor


def like(tensor: Tensor, cut: Tensor) -> Tensor:
    """Returns `cut` as a parameter or buffer like `tensor`, in its memory format."""
    last = torch.channels_last
    if cut.shape != tensor.shape and tensor.dim() == 4 and tensor.is_contiguous(memory_format=last):
        cut = cut.contiguous(memory_format=last)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(cut, requires_grad=tensor.requires_grad)
    return cut.requires_grad_(tensor.requires_grad)


def _carry_notes(tensor: Tensor, made: Tensor, positions: list[tuple[int, Tensor]]) -> None:
    """Copies the attributes that users set on `tensor` to `made`, its cut copy.

    Tensors of the same shape are cut like `tensor` (`positions`), plain values are copied, and
    everything else is left out.
    """
    for key, value in vars(tensor).items():
        if isinstance(value, Tensor) and value.shape == tensor.shape:
            setattr(made, key, _cut_tensor(value, positions))
        elif is_plain(value):
            setattr(made, key, copy.deepcopy(value))


def _cut_both(data: Tensor, positions: dict[int, Tensor]) -> Tensor:
    """Cuts dimensions 0 and 1 a few rows at a time, which keeps the rows in the cache.

    2.5 times as fast as one dimension after the other on the first linear layer of VGG-16, 1.4
    times on all of MobileNetV2.
    """
    rows, columns = positions[0], positions[1]
    out = data.new_empty((len(rows), len(columns), *data.shape[2:]))
    step = max(1, BLOCK // data[0].numel())
    for start in range(0, len(rows), step):
        part = data.index_select(0, rows[start : start + step])
        torch.index_select(part, 1, columns, out=out[start : start + step])
    return out


def _compute_weights(module: nn.Module) -> None:
    """Recomputes the weights that hooks of torch (weight norm, masks) keep in `module`."""
    for hook in module._forward_pre_hooks.values():
        if any(kind.__module__ in RENEWING for kind in type(hook).__mro__):
            with torch.no_grad():
                hook(module, ())


def _fit_attributes(module: nn.Module) -> None:
    """Sets the sizes that `module` states in attributes to those of its weights."""
    weight: Any = getattr(module, "weight", None)
    if isinstance(module, nn.modules.conv._ConvNd):
        rows, columns = weight.shape[:2]
        if module.transposed:
            module.in_channels, module.out_channels = rows, columns * module.groups
        else:
            module.in_channels, module.out_channels = columns * module.groups, rows
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        vector = weight if weight is not None else module.running_mean
        if vector is not None:
            module.num_features = len(vector)
    elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        module.normalized_shape = tuple(weight.shape)
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = len(weight)
    elif isinstance(module, nn.RNNBase):
        module.input_size = module.all_weights[0][0].size(1)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(weight)


def _fit_groups(module: nn.Module, call: Call, stay: Kept) -> None:
    """Notes how the groups of a module are cut; sets their number where whole groups go.

    Args:
        module: a convolution or norm of several groups.
        call: its use in the forward.
        stay: which of its inputs stay.
    """
    by_group = call.kind == "depthwise" or (call.kind == "norm" and call.groups == len(stay))
    module.grouped_by = "group" if by_group else "position"  # type: ignore[assignment]
    if by_group and isinstance(module, nn.modules.conv._ConvNd | nn.GroupNorm):
        number = "num_groups" if isinstance(module, nn.GroupNorm) else "groups"
        setattr(module, number, int(stay.reshape(call.groups, -1)[:, 0].sum()))


def _fit_unweighted(module: nn.Module, channels: int, groups: int) -> None:
    """Sets the number of channels, and of groups, of a norm without weights."""
    if isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features = channels
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = channels
        module.num_groups = channels if groups > 1 else 1


def _cut_gather(module: nn.Module, call: Call, cmap: ChannelMap, kept: Kept) -> None:
    """Rewrites the index of a gather for the channels that are left."""
    assert isinstance(module, GatherChannels), f"{call.module} is no GatherChannels"
    inputs, outputs = kept[cmap.classes(call.inputs)], kept[cmap.classes(call.outputs)]
    moved = np.where(inputs, np.cumsum(inputs) - 1, -1)
    old = np.array(call.positions, dtype=np.int64)[outputs]
    module.set_positions(np.where(old >= 0, moved[old], -1).tolist())
