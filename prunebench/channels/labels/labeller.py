"""Labels: which channel every element of every tensor came from, found by running the forward.

Beside each tensor runs a tensor of integer labels with the same number of dimensions and size 1 on
those that do not matter. Label 0 stands for whatever can never be cut. A label is stored as
``2 * id + live``, where ``live`` says that a channel whose producer is zeroed is *not* zero here
(it went through a sigmoid, say).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prunebench.channels.gather import GatherChannels

FREE_LIMIT = 1 << 16  # elements of a parameter that is labelled one by one when used directly


@dataclass
class Place:
    """Where in a forward a tensor appears: the `nth` call of a function, or of a module.

    Attributes:
        function, nth: name of a torch function and its call number, from 0.
        module, call: a module that takes or returns that very tensor, and its call number; or None.
        takes: the tensor is the input of that call, else its result.
        labels: the labels of that tensor.
        shape: its shape.
    """

    function: str
    nth: int
    labels: Tensor
    shape: tuple[int, ...]
    module: str | None = None
    call: int = 0
    takes: bool = False


@dataclass
class Call:
    """One use of weights in the forward.

    Attributes:
        kind: ``conv``, ``linear``, ``depthwise``, ``norm`` or ``gather``.
        module: qualified name of the module that owns the weight.
        weight: full name of the weight.
        inputs: label ids [in] along the channel dimension.
        live: bool [in], where a cut channel is not zero by itself.
        outputs: label ids [out].
        macs: multiply-adds per kept pair of (weight row, weight column).
        groups: of the convolution or norm.
        place: of the input.
        turned: a transposed convolution, whose weight is [in, out / groups, ...].
        positions: of a gather.
    """

    kind: str
    module: str
    weight: str
    inputs: Tensor
    live: Tensor
    outputs: Tensor
    macs: int
    groups: int
    place: Place
    turned: bool = False
    positions: tuple[int, ...] = ()


@dataclass
class Trail:
    """Which producers a tensor comes straight from, and where it was last seen.

    Attributes:
        producers: names of weights.
        raw: no activation yet.
        place: to be completed when a module returns the tensor.
    """

    producers: tuple[str, ...]
    raw: bool
    place: Place


@dataclass
class Tape:
    """Everything one labelled forward noted."""

    count: int = 1
    made: list[Tensor] = field(default_factory=list)
    ties: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    zeros: list[Tensor] = field(default_factory=list)
    gates: list[Tensor] = field(default_factory=list)
    frozen: list[tuple[Tensor, str]] = field(default_factory=list)
    reads: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    free: dict[str, Tensor] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    fixed_macs: int = 0
    example: Tensor = field(default_factory=lambda: torch.empty(0, device="meta"))
    fragile: bool = False
    activations: dict[str, Place] = field(default_factory=dict)
    blocks: dict[str, Place] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)


def labels_of(t: Tensor) -> Tensor:
    """Returns the labels of `t`; zeros (never cut) where it has none."""
    found: Tensor | None = getattr(t, "_channel_labels", None)
    return found if found is not None else torch.zeros([1] * t.dim(), dtype=torch.int64)


def put(t: Tensor, labels: Tensor) -> Tensor:
    """Gives `t` its labels and returns it."""
    t._channel_labels = labels  # type: ignore[attr-defined]
    return t


def shrink(labels: Tensor) -> Tensor:
    """Returns `labels` with size 1 on every dimension along which they do not change."""
    for dim, size in enumerate(labels.shape):
        if size > 1 and (
            labels.stride(dim) == 0 or bool((labels.narrow(dim, 0, 1) == labels).all())
        ):
            labels = labels.narrow(dim, 0, 1)
    return labels.contiguous()


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yields every tensor in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)


def map_tensors(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """Returns `value` with every tensor in nested tuples, lists and dicts changed."""
    if isinstance(value, Tensor):
        return change(value)
    if type(value) is dict:
        return {key: map_tensors(item, change) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        items = [map_tensors(item, change) for item in value]
        if type(value) is list:
            return items
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value


class Labeller(TorchFunctionMode):
    """Runs each torch function on the meta device and its rule on the labels.

    Attributes:
        tape: what was noted.
        names: id of each parameter and buffer -> full name.
        grouped: module name -> how groups are cut, where surgery has noted it.
        stack: names of the modules that are running, innermost last.
        counting: whether multiply-adds count (they do in eval mode).
        stuck: name of the innermost module whose forward failed.
        stuck_args: what it was called with.
    """

    def __init__(self, model: nn.Module, tape: Tape) -> None:
        """Learns the names of all parameters and buffers of `model`."""
        super().__init__()
        from prunebench.channels.labels.rules import RULES
        from prunebench.channels.labels.unknown import unknown

        self._rules = RULES
        self._unknown = unknown
        self.tape = tape
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
        self.seen[name] = self.seen.get(name, -1) + 1
        rule = self._rules.get(name)
        if rule is None:
            return self._unknown(self, name, func, args, kwargs)
        return rule(self, name, func, args, kwargs)

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Runs `func` with every real tensor replaced by one without data."""
        return func(*map_tensors(args, self.meta), **map_tensors(kwargs, self.meta))

    def meta(self, t: Tensor) -> Tensor:
        """Returns `t` without its data (`t` itself if it has none)."""
        if t.is_meta and id(t) not in self.names:
            return t
        known = self._meta.get(id(t))
        if known is None:
            known = (t, torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="meta"))
            self._meta[id(t)] = known  # holds t, so that its id stays its own
        return known[1]

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
        trail: Trail | None = getattr(result, "_channel_trail", None)
        if trail is not None and trail.place.module is None:
            trail.place.module, trail.place.call = module, call

    # -- noting --------------------------------------------------------------------------------

    def new(self, count: int) -> Tensor:
        """Returns `count` new label ids."""
        ids = torch.arange(self.tape.count, self.tape.count + count)
        self.tape.count += count
        self.tape.made.append(ids)
        return ids

    def new_zeros(self, count: int) -> Tensor:
        """Returns new label ids for channels that hold zeros and nothing else."""
        ids = self.new(count)
        self.tape.zeros.append(ids)
        return ids

    def tie(self, a: Tensor, b: Tensor) -> None:
        """Notes that ids `a` and `b` (same shape) live and die together."""
        if a is not b:
            self.tape.ties.append((a.reshape(-1), b.reshape(-1)))

    def freeze(self, ids: Tensor, reason: str) -> None:
        """Notes that `ids` can never be cut."""
        self.tape.frozen.append((ids.reshape(-1), reason))

    def read(self, name: str, dim: int, ids: Tensor) -> None:
        """Notes that index i of dimension `dim` of parameter `name` belongs to ``ids[i]``."""
        known = self.tape.reads.setdefault((name, dim), ids)
        self.tie(known, ids)

    def note(self, call: Call) -> None:
        """Notes one use of weights."""
        if not self.counting:
            call.macs = 0
        self.tape.calls.append(call)

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
            self.tie(first.expand_as(labels), labels >> 1)
            labels = first * 2 + live
        return labels.reshape(-1).expand(size)

    # -- labels of parameters that are used directly -------------------------------------------

    def labels(self, t: Tensor) -> Tensor:
        """Returns the labels of `t`; a parameter used directly gets one label per element."""
        name = self.names.get(id(t))
        if name is None or t.numel() > FREE_LIMIT or t.numel() == 1 or t.dim() == 0:
            return labels_of(t)
        known = self.tape.free.get(name)
        if known is None:
            known = self.tape.free[name] = self.new(t.numel()).view(t.shape)
        return known * 2
