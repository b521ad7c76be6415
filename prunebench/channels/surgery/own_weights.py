"""Checks that a copy of a network computes with its own weights."""

from __future__ import annotations

from types import FunctionType, MethodType
from typing import Any
from weakref import (
    CallableProxyType,
    ProxyType,
    WeakKeyDictionary,
    WeakSet,
    WeakValueDictionary,
    ref,
)

from torch import Tensor, fx, nn

from prunebench.channels.example import one_image, run_on
from prunebench.channels.labels.elementwise import elementwise, unary
from prunebench.channels.labels.forward import following
from prunebench.channels.labels.labeller import Labeller, Rules
from prunebench.channels.labels.norms import batch_norm
from prunebench.channels.labels.recurrent import first_step, recurrent
from prunebench.channels.labels.rules import MOVES, RULES, assignment, decision, full, no_tensor
from prunebench.channels.labels.steps import given_in
from prunebench.channels.labels.tape import Tape
from prunebench.channels.labels.weights import conv, convolved
from prunebench.channels.map import ChannelMap, Kept
from prunebench.channels.members import named_tensors
from prunebench.channels.surgery.recheck import Recheck, replay
from prunebench.channels.untouched import CONTAINERS, LEFT_ALONE, PLAIN, TENSORS, inside
from prunebench.errors import PruningError, first_line

_WEAK = (ref, ProxyType, CallableProxyType, WeakValueDictionary, WeakKeyDictionary, WeakSet)


def ignored(labeller: Labeller, name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Runs a function without data and without labels."""
    if name in MOVES and labeller.constants(given_in((*args, *kwargs.values()))):
        return func(*args, **kwargs)
    return labeller.run(func, args, kwargs)


#: rules that matter without labels: some answer questions, some find shapes faster than torch
_KEPT = (no_tensor, decision, assignment, full, unary, elementwise, batch_norm)
UNLABELLED: Rules = {
    "": ignored,
    **{name: rule for name, rule in RULES.items() if rule in _KEPT},
    **{name: first_step for name, rule in RULES.items() if rule is recurrent},
    **{name: convolved for name, rule in RULES.items() if rule is conv},
}


def leads_out(model: nn.Module) -> bool:
    """Whether a deep copy of `model` may hold something that leads back to `model`.

    That is a function kept in an attribute or among the hooks, a weak reference, or a method that
    names a global or an outer variable which may hold modules. Hardly any network has one.
    """
    todo: list[Any] = [model]
    seen: dict[int, Any] = {}
    kinds: set[type] = set()
    while todo:
        value = todo.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        kind = type(value)
        if kind in _WEAK or (kind is FunctionType and _may_lead_on(value)):
            return True
        kinds.add(kind)
        parts = (value.__self__,) if kind is MethodType else inside(value)
        for part in parts:
            kind = type(part)
            if kind in TENSORS:
                part, kind = part.__dict__, dict
            if kind not in LEFT_ALONE and (kind not in PLAIN or part):
                todo.append(part)
    classes = {one for kind in kinds if issubclass(kind, nn.Module) for one in kind.__mro__}
    methods = [one for kind in classes if not _of_torch(kind) for one in vars(kind).values()]
    return any(isinstance(one, FunctionType) and _names_modules(one) for one in methods)


def _may_lead_on(function: FunctionType) -> bool:
    """Whether `function` may refer to modules: torch's own functions do only as closures."""
    return bool(function.__closure__) or not _of_torch(function)


def _of_torch(named: Any) -> bool:
    return str(named.__module__).split(".")[0] in ("torch", "builtins")


def _names_modules(method: FunctionType) -> bool:
    """Whether `method` has globals or outer variables that may hold modules."""
    cells = [part for cell in method.__closure__ or () for part in inside(cell)]
    named = [method.__globals__.get(name) for name in method.__code__.co_names]
    return any(
        isinstance(value, (nn.Module, Tensor, MethodType, *_WEAK))
        or (isinstance(value, (*CONTAINERS, WeakValueDictionary)) and len(value) > 0)
        for value in [*cells, *named]
    )


def require_own_weights(copied: nn.Module, model: nn.Module, cmap: ChannelMap, kept: Kept) -> None:
    """Raises unless the forward of a copy of `model` computes with the copy's own weights.

    A deep copy shares closures, weak references and globals with its original: a patched forward or
    hook made of these still runs the original. So one forward without data must use every weight of
    the copy that the dense forward uses, and none of `model`; and in a second one every function
    must be given what it is given in `model`, and nothing left from earlier.

    Args:
        copied: the copy, whole or cut.
        model: the dense network.
        cmap: its channel map.
        kept: which classes are left in `copied`.

    Raises:
        PruningError: it uses other weights, computes something else, or does not run.
    """
    labeller = Labeller(copied, Tape(), UNLABELLED)
    labeller.strangers = {id(tensor): name for name, tensor in named_tensors(model)}
    failure: Exception | None = None
    try:
        with following(labeller, copied):
            run_on(copied, one_image(cmap.tape.example))
    except Exception as error:  # noqa: BLE001  (the code of a network may raise anything)
        failure = error
    captured = any(isinstance(module, fx.GraphModule) for module in copied.modules())
    missing = [] if captured else sorted(cmap.tape.used - labeller.tape.used)
    foreign = sorted(labeller.borrowed)
    if foreign or (missing and failure is None):
        weight = (foreign or missing)[0]
        raise PruningError(
            f"a copy of the network does not run its own {weight} but that of the original: a "
            "closure, hook, weak reference or global in the forward leads there; make what it "
            f"does a method of a module, so that {weight.rpartition('.')[0] or 'it'} is copied"
        )
    if failure is not None:
        why = first_line(failure)
        raise PruningError(
            f"a copy of the network does not run, {labeller.stuck or 'its forward'} fails: {why}; "
            "a hook or closure in the forward may still work on the original"
        ) from failure
    differs = None if captured else replay(copied, Recheck(cmap, kept))
    if differs is not None:
        raise PruningError(
            f"a copy of the network does not compute what the original does, {differs.where}: "
            f"{differs.why}; a hook or closure in the forward may still work on the original"
        )
