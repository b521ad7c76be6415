"""A trial cut without data: finds groups that a network's own code does not let us cut."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from prunebench.channels.groups import build_map
from prunebench.channels.labels.own_code import asks_for_counts
from prunebench.channels.labels.tape import Tape
from prunebench.channels.map import ChannelMap
from prunebench.channels.members import named_tensors
from prunebench.channels.plan import Plan
from prunebench.channels.surgery.copying import copied
from prunebench.channels.surgery.insert_gathers import gathers_for
from prunebench.channels.surgery.recheck import StuckError
from prunebench.channels.surgery.slim import keep_only, like


def map_after_trial(model: nn.Module, tape: Tape) -> ChannelMap:
    """Returns the channel map of `model`; groups that cannot be cut in practice are frozen.

    Only networks whose own code moves channels by numbers, hands numbers to functions or asks for
    counts need the trial.
    """
    tape.fragile = tape.fragile or asks_for_counts(model)
    cmap = build_map(model, tape)
    if not tape.fragile or not cmap.groups:
        return cmap
    empty = _without_data(model)
    frozen: dict[str, str] = {}
    while cmap.groups:
        plan = _trial_plan(cmap)
        error = _stuck(empty, cmap, plan)
        if error is None:
            break
        held = set(error.groups) - set(frozen)
        if not held:  # the error names no group: freeze those that cannot be cut alone, or all
            alone = {name: Plan({name: kept}) for name, kept in plan.kept.items()}
            held = {name for name, one in alone.items() if _stuck(empty, cmap, one)} or set(alone)
        reason = f"{error.where} does not follow a cut: {error.why}"
        frozen |= dict.fromkeys(sorted(held), reason)
        cmap = build_map(model, tape, frozen)
    return cmap


def _stuck(empty: nn.Module, cmap: ChannelMap, plan: Plan) -> StuckError | None:
    """Returns why `empty` cannot be cut by `plan`; None if it can."""
    kept = cmap.keeps(plan)
    try:
        gathers_for(empty, keep_only(empty, cmap, kept), cmap, kept)
    except StuckError as error:
        return error
    return None


def _without_data(model: nn.Module) -> nn.Module:
    """Returns a copy of `model` on the meta device; integer tensors keep their data."""
    memo: dict[int, Tensor] = {}
    for _, tensor in named_tensors(model):
        if not tensor.is_floating_point():  # an index, which says where channels go
            memo[id(tensor)] = tensor.clone()
            continue
        empty = torch.empty_strided(
            tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta"
        )
        memo[id(tensor)] = like(tensor, empty)
    return copied(model, memo)


def _trial_plan(cmap: ChannelMap) -> Plan:
    """Returns a plan that keeps a third of each group's first half and most of its second.

    Uneven, so that halves, ends and shuffled parts do not come out alike by chance; and the same
    every time.
    """
    draw = np.random.default_rng(0)
    kept = {}
    for group in cmap.groups:
        half = group.size // 2
        first = draw.permutation(half)[: half // 3]
        rest = group.size - half
        second = half + draw.permutation(rest)[: max(min(2, rest), rest - 1 - rest // 5)]
        kept[group.name] = np.sort(np.concatenate([first, second])).tolist()
    return Plan(kept)
