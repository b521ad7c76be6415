"""Compares a slimmed network with the dense one, module by module, and with the plan.

`verify` compares outputs in eval mode. Here follows what those do not show: settings that count in
training, flags of parameters, and whether parameters and MACs are as many as the plan says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import fx, nn

from prunebench.channels.example import Example, one_image, run_on
from prunebench.channels.followable import is_compiled, plain
from prunebench.channels.labels.forward import following
from prunebench.channels.labels.labeller import Labeller, Rules
from prunebench.channels.labels.own_code import COUNTS
from prunebench.channels.labels.recurrent import recurrent
from prunebench.channels.labels.rules import RULES
from prunebench.channels.labels.tape import Tape
from prunebench.channels.labels.weights import conv, convolved, linear
from prunebench.channels.map import ChannelMap
from prunebench.channels.members import named_modules, named_parameters, named_tensors
from prunebench.channels.plan import Plan
from prunebench.channels.surgery.copying import copies_itself
from prunebench.channels.surgery.own_weights import UNLABELLED, ignored
from prunebench.errors import PruningError

#: attributes of modules that a cut changes
CHANGED = COUNTS | {"input_size", "groups", "num_groups", "grouped_by", "positions"}
_PLAIN = (bool, int, float, str, type(None))
_UNCOPIED = {"_compiled_call_impl"}


def require_as_planned(model: nn.Module, slimmed: nn.Module, cmap: ChannelMap, plan: Plan) -> None:
    """Checks that `slimmed` is `model` without the planned channels, and else unchanged.

    Every module must be of the same class, in the same mode, with the same settings and hooks,
    every parameter have the same flags; parameters and multiply-adds must be those planned.

    Raises:
        PruningError: something else differs, or a count is not as planned.
    """
    model, slimmed = plain(model), plain(slimmed)
    wrong = next(_differences(model, slimmed), None) or next(_miscounts(slimmed, cmap, plan), None)
    if wrong is not None:
        raise PruningError(f"{wrong}; prunebench cannot cut this network correctly")


def multiply_adds(network: nn.Module, example: Example) -> int:
    """Returns the multiply-adds (conv, linear, matmul) of one image, in a forward without data."""
    labeller = Labeller(network, Tape(), _COUNTED)
    with following(labeller, network):
        run_on(network, one_image(example))
    return labeller.tape.fixed_macs


def _count(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Runs a function without data and counts what it costs."""
    return labeller.run_counted(func, args, kwargs)


def _convolve(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Runs and counts a convolution by its shapes, ten times faster than torch's counter."""
    if "transpose" in name or kwargs:
        return labeller.run_counted(func, args, kwargs)
    result = convolved(labeller, name, func, args, kwargs)
    labeller.tape.fixed_macs += result.numel() * args[1].shape[1:].numel()
    return result


_COSTLY = (conv, linear, recurrent)
_COUNTED: Rules = {
    **{name: UNLABELLED.get(name, ignored) for name, rule in RULES.items() if rule not in _COSTLY},
    **{name: _convolve for name, rule in RULES.items() if rule is conv},
    "": _count,
}


def _miscounts(slimmed: nn.Module, cmap: ChannelMap, plan: Plan) -> Iterator[str]:
    """Yields, in words, each count that is not the planned one."""
    left, planned = sum(p.numel() for _, p in named_parameters(slimmed)), cmap.params(plan)
    if left != planned:
        yield f"{planned:,} parameters were planned, but {left:,} are left"
    done, planned = multiply_adds(slimmed, cmap.tape.example), cmap.macs(plan)
    if done != planned:
        yield f"{planned:,} multiply-adds were planned, but {done:,} are done"


def _differences(model: nn.Module, slimmed: nn.Module) -> Iterator[str]:
    """Yields, in words, what differs besides channels."""
    tensors = dict(named_tensors(slimmed))
    for name, t in named_tensors(model):
        now = tensors.get(name)
        if now is None:
            yield f"{name} is gone from the slimmed network"
        elif (now.requires_grad, now.dtype, now.device) != (t.requires_grad, t.dtype, t.device):
            yield f"{name} has another requires_grad, type or device after the cut"
    modules = dict(named_modules(slimmed))
    for name, module in named_modules(model):
        if name in modules:
            for what in _settings(module, modules[name]):
                yield f"{name or 'the network'} has another {what} after the cut"


def _settings(module: nn.Module, now: nn.Module) -> Iterator[str]:
    """Yields the names of attributes that differ between two modules.

    Of captured or compiled modules, and of bare containers, only the mode is compared.
    """
    if isinstance(now, fx.GraphModule) or is_compiled(now) or type(now) is nn.Module:
        if module.training != now.training:
            yield "training"
        return
    if type(module) is not type(now):
        yield "class"
    before, after = vars(module), vars(now)
    if not copies_itself(type(module)):
        yield from (before.keys() ^ after.keys()) - CHANGED - _UNCOPIED
    for key in before.keys() & after.keys() - CHANGED:
        if _described(before[key]) != _described(after[key]):
            yield key


def _described(value: Any) -> Any:
    """Returns the comparable part of an attribute: plain values, and the number of hooks."""
    if isinstance(value, dict):
        return len(value)
    if isinstance(value, tuple):
        return tuple(map(_described, value))
    return value if isinstance(value, _PLAIN) else None
