"""Labels: which channel every element of every tensor came from, found by running the forward.

Beside each tensor runs a tensor of integer labels with the same number of dimensions and size 1 on
those that do not matter. Label 0 stands for whatever can never be cut. A label is stored as
``2 * id + live``, where ``live`` says that a channel whose producer is zeroed is *not* zero here
(it went through a sigmoid, say).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prunebench.channels.gather import GatherChannels
from prunebench.channels.labels.tape import Call, Place, Tape, trail_of
from prunebench.channels.labels.tensors import labels_of, map_tensors

FREE_LIMIT = 1 << 16  # elements of a parameter that is labelled one by one when used directly
#: what a torch function does to labels: (labeller, function's name, function, args, kwargs)
#: -> result; the rules by name of the function, and under "" the one for all others
Rule = Callable[["Labeller", str, Any, tuple[Any, ...], dict[str, Any]], Any]
Rules = Mapping[str, Rule]


class LabelIds(Protocol):
    """Hands out label ids, and is told what happens to them; a `Tape` notes it."""

    def new(self, count: int) -> Tensor:
        """Returns `count` label ids for channels that are made."""

    def tie(self, a: Tensor, b: Tensor) -> None:
        """Hears that ids `a` and `b` (same shape) meet, so that they live and die together."""

    def read(self, name: str, dim: int, ids: Tensor) -> None:
        """Hears that index i of dimension `dim` of parameter `name` belongs to ``ids[i]``."""

    def freeze(self, ids: Tensor, reason: str) -> None:
        """Hears that `ids` can never be cut."""


class Labeller(TorchFunctionMode):
    """Runs each torch function on the meta device and its rule on the labels.

    Attributes:
        tape: what is noted.
        ids: where label ids come from: the tape itself, unless a network is checked against the
            tape of another.
        names: id of each parameter and buffer -> full name.
        grouped: module name -> how groups are cut, where surgery has noted it.
        stack: names of the modules that are running, innermost last.
        counting: whether multiply-adds count (they do in eval mode).
        stuck: name of the innermost module whose forward failed.
        stuck_args: what it was called with.
        strangers: id -> name of the weights of another network, which are not for this one.
        borrowed: names of those that it uses all the same.
    """

    def __init__(
        self, model: nn.Module, tape: Tape, rules: Rules, ids: LabelIds | None = None
    ) -> None:
        """Learns the names of all parameters and buffers of `model`."""
        super().__init__()
        self._rules = rules
        self.tape = tape
        self.ids: LabelIds = tape if ids is None else ids
        self.names: dict[int, str] = {}
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            self.names[id(tensor)] = name
        self.modules = {id(module): name for name, module in model.named_modules()}
        self.gathers = {
            id(module.index): module.positions
            for module in model.modules()
            if isinstance(module, GatherChannels)
        }
        self.grouped = {
            name: module.grouped_by
            for name, module in model.named_modules()
            if hasattr(module, "grouped_by")
        }
        self.stack: list[str] = []
        self.stuck = ""
        self.stuck_args: Any = ()
        self.strangers: Mapping[int, str] = {}
        self.borrowed: set[str] = set()
        self.counting = True
        self.seen: dict[str, int] = {}
        self.calls: dict[str, int] = {}
        self._meta: dict[int, tuple[Tensor, Tensor]] = {}

    # -- running -------------------------------------------------------------------------------

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Runs `func` without data and carries the labels along."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        for first in () if args else ("input", "tensors"):
            if first in kwargs:
                args, kwargs = (kwargs[first],), {k: v for k, v in kwargs.items() if k != first}
        self.seen[name] = self.seen.get(name, -1) + 1
        for t in (*args, *kwargs.values()) if kwargs else args:
            if id(t) in self.names or id(t) in self.strangers:
                self.use(t)
        if name[-1] == "_" and name[-2:] != "__" and args:
            self.writes(args[0])
        rule = self._rules.get(name, self._rules[""])
        return rule(self, name, func, args, kwargs)

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Runs `func` with every real tensor replaced by one without data."""
        return func(*map_tensors(args, self.meta), **map_tensors(kwargs, self.meta))

    def meta(self, t: Tensor) -> Tensor:
        """Returns `t` without its data (`t` itself if it has none)."""
        if t.is_meta and id(t) not in self.names and id(t) not in self.strangers:
            return t
        known = self._meta.get(id(t))
        if known is None:
            self.use(t)
            known = (t, torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="meta"))
            self._meta[id(t)] = known  # holds t, so that its id stays its own
        return known[1]

    def use(self, t: Any) -> None:
        """Notes that the forward computes with `t`, should it be a parameter or buffer."""
        if id(t) in self.names:
            self.tape.used.add(self.names[id(t)])
        elif id(t) in self.strangers:
            self.borrowed.add(self.strangers[id(t)])

    def writes(self, t: Any) -> None:
        """Notes that the forward may write to `t`, should it be a parameter or buffer."""
        name = self.names.get(id(t))
        if name is not None:
            self.tape.written.add(name)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keeps `stack` up to date while a forward runs."""
        original = nn.Module.__call__
        labeller = self

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            name = labeller.modules.get(id(module), "")
            labeller.stack.append(name)
            nth = labeller.calls.get(name, 0)
            labeller.calls[name] = nth + 1
            try:
                result = original(module, *args, **kwargs)
            except BaseException:
                if not labeller.stuck:
                    labeller.stuck, labeller.stuck_args = name, (args, kwargs)
                raise
            finally:
                labeller.stack.pop()
            if isinstance(result, Tensor):
                labeller.returned(result, name, nth)
            return result

        nn.Module.__call__ = call  # type: ignore[method-assign]
        try:
            yield
        finally:
            nn.Module.__call__ = original  # type: ignore[method-assign]

    def place(self, name: str, t: Tensor, *, takes: bool = False) -> Place:
        """Returns the place of `t`, taken or returned by the running call of function `name`."""
        return Place(name, self.seen[name], labels_of(t), tuple(t.shape), takes=takes)

    def returned(self, result: Tensor, module: str, call: int) -> None:
        """Completes the place of `result`, which `module` has just returned."""
        trail = trail_of(result)
        if trail is not None and trail.place.module is None:
            trail.place.module, trail.place.call = module, call

    # -- noting --------------------------------------------------------------------------------

    def new_zeros(self, count: int) -> Tensor:
        """Returns new label ids for channels that hold zeros and nothing else."""
        ids = self.ids.new(count)
        self.tape.zeros.append(ids)
        return ids

    def note(self, call: Call) -> None:
        """Notes one use of weights."""
        if not self.counting:
            call.macs = 0
        self.tape.calls.append(call)

    def spread(self, macs: int, labels: Tensor) -> None:
        """Notes multiply-adds that all channels of `labels` cost alike."""
        if self.counting:
            self.tape.spread_macs.append((macs // labels.numel(), labels.reshape(-1) >> 1))

    def row(self, labels: Tensor, dim: int, size: int) -> Tensor | None:
        """Returns the labels [size] along `dim`; None where only other dimensions hold channels.

        What reads `dim` with one weight for all positions ties labels that change from one
        position to the next.
        """
        if labels.numel() != labels.size(dim):
            if labels.size(dim) == 1:
                return None
            others = [d for d in range(labels.dim()) if d != dim]
            live = (labels & 1).amax(others, keepdim=True)
            first = labels.amin(others, keepdim=True) >> 1
            self.ids.tie(first.expand_as(labels), labels >> 1)
            labels = first * 2 + live
        return labels.reshape(-1).expand(size)

    # -- labels of parameters that are used directly -------------------------------------------

    def labels(self, t: Tensor) -> Tensor:
        """Returns the labels of `t`; a parameter used directly gets one label per element."""
        name = self.names.get(id(t))
        if name is None or t.numel() == 1 or t.dim() == 0:
            return labels_of(t)
        self.tape.data.add(name)
        if t.numel() > FREE_LIMIT:
            return labels_of(t)
        known = self.tape.free.get(name)
        if known is None:
            known = self.tape.free[name] = self.ids.new(t.numel()).view(t.shape)
        return known * 2
