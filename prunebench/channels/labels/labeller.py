"""Labels: which channel every element of every tensor came from, found by running the forward.

Beside each tensor runs a tensor of integer labels with the same number of dimensions and size 1 on
those that do not matter. Label 0 stands for whatever can never be cut. A label is stored as
``2 * id + live``, where ``live`` says that a channel whose producer is zeroed is *not* zero here
(it went through a sigmoid, say).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prunebench.channels.gather import GatherChannels
from prunebench.channels.labels.label_ids import LabelIds
from prunebench.channels.labels.layers import function_call
from prunebench.channels.labels.steps import Entered, Step, given_in, in_place, numbers_in, worn
from prunebench.channels.labels.tape import Place, Tape, trail_of
from prunebench.channels.labels.tensors import Row, labels_of, put, row_of
from prunebench.channels.labels.values import mix, put_values
from prunebench.channels.members import named_modules
from prunebench.channels.multiply_adds import MultiplyAdds
from prunebench.channels.tensors import map_tensors, tensors_in

#: where torch keeps modules that move data
_MOVING = {f"torch.nn.modules.{name}" for name in ("flatten", "pixelshuffle", "channelshuffle")}

#: runs a torch function and labels its result:
#: (labeller, function's name, function, args, kwargs) -> result
Rule = Callable[["Labeller", str, Any, tuple[Any, ...], dict[str, Any]], Any]
#: name of a torch function -> its rule; "" -> the rule of all others
Rules = Mapping[str, Rule]


class Labeller(TorchFunctionMode):
    """Runs each torch function on the meta device and its rule on the labels.

    Attributes:
        tape: the notes.
        ids: where label ids come from: the tape itself, unless a network is checked against the
            tape of another.
        names: id of each parameter and buffer -> full name.
        layers: module name -> module.
        grouped: module name -> ``group`` or ``position``: how surgery cut its groups, if it did.
        stack: names of the modules that are running, innermost last.
        stuck: name of the innermost module whose forward failed.
        stuck_args: what it was called with.
        strangers: id -> name of another network's weights, which this one must not use.
        borrowed: names of those that it uses all the same.
        asleep: whether functions and modules are left alone while another labeller works.
        moved: how many moves of unlabelled data there were.
        standard: names of the modules that come with torch.
        still: names of those among them that move no data.
    """

    def __init__(
        self, model: nn.Module, tape: Tape, rules: Rules, ids: LabelIds | None = None
    ) -> None:
        """Learns the names of all parameters and buffers of `model`."""
        super().__init__()
        self._rules = rules
        self.tape = tape
        self.ids: LabelIds = ids or tape
        self.names: dict[int, str] = {}
        self.modules: dict[int, str] = {}
        self.gathers: dict[int, tuple[int, ...]] = {}
        self.grouped: dict[str, str] = {}
        self.standard: set[str] = set()
        self.still: set[str] = set()
        self.layers = dict(named_modules(model))
        for name, module in self.layers.items():
            self.modules[id(module)] = name
            for key, tensor in [*module._parameters.items(), *module._buffers.items()]:
                if tensor is not None:
                    self.names.setdefault(id(tensor), f"{name}.{key}" if name else key)
            if isinstance(module, GatherChannels):
                self.gathers[id(module.index)] = module.positions
            if "grouped_by" in vars(module):
                self.grouped[name] = vars(module)["grouped_by"]
            home = type(module).__module__
            if home.startswith("torch.nn."):
                self.standard.add(name)
                if home not in _MOVING:
                    self.still.add(name)
        self.stack: list[str] = []
        self.stuck = ""
        self.stuck_args: Any = ()
        self.strangers: Mapping[int, str] = {}
        self.borrowed: set[str] = set()
        self.asleep, self.moved = False, 0
        self.seen: dict[str, int] = {}
        self.calls: dict[str, int] = {}
        self._meta: dict[int, tuple[Tensor, Tensor]] = {}

    # -- running -------------------------------------------------------------------------------

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Does what `_label` does, unless the labeller is asleep."""
        kwargs = kwargs or {}
        return func(*args, **kwargs) if self.asleep else self._label(func, args, kwargs)

    def _label(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs `func` without data and carries the labels along."""
        name = getattr(func, "__name__", None) or str(func)
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
        if getattr(rule, "moves", False):
            return rule(self, name, func, args, kwargs)
        if kwargs.get("out") is not None:
            rule = self._rules[""]
        return self._compute(rule, name, func, args, kwargs)

    def _compute(self, rule: Rule, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        """Runs `func`, which computes rather than moves: its result gets new value numbers."""
        step = self._step(name, rule, args, kwargs)
        self.ids.step(step)
        salt = step.salt()
        result = rule(self, name, func, args, kwargs)
        for nth, out in enumerate(given_in((result,))):
            put_values(out, mix(0, salt + nth))
            if out._base is not None and in_place(name, args, kwargs):
                self._changed(out, out._base)
        return result

    def _step(self, name: str, rule: Rule, args: Any, kwargs: Any) -> Step:
        """Returns the step of a call; notes where the network's own code passes numbers."""
        given = tuple([worn(t, self.names) for t in given_in((*args, *kwargs.values()))])
        where = self.running
        numbers: tuple[float, ...] = ()
        if where not in self.standard:
            numbers = tuple(numbers_in((args, kwargs)))
            own = numbers or any(one.constant is not None for one in given)
            if own and not getattr(rule, "spatial", False):
                self.tape.fragile = True
            if getattr(rule, "sizes", False):
                numbers = ()
        return Step(self.ids.at, len(self.tape.made), name, where, given, numbers)

    def outputs(self, result: Any) -> None:
        """Records the network's output as the last step of its forward."""
        given = tuple(worn(t, self.names) for t in tensors_in(result))
        self.ids.step(Step(self.ids.at, len(self.tape.made), "return", "", given, ()))

    def _changed(self, t: Tensor, base: Tensor) -> None:
        """Notes that `t`, a view of `base`, was changed in place."""
        if base.numel() > t.numel():
            self.ids.freeze(labels_of(base) >> 1, "a part of it is changed in place")
        live = int((labels_of(t) & 1).max())
        put_values(put(base, labels_of(base) | live), mix(0, self.ids.at))

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Runs `func` with every real tensor replaced by one without data."""
        return func(*map_tensors(args, self.meta), **map_tensors(kwargs, self.meta))

    def run_counted(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Does what `run` does, and adds its MACs to those that no cut changes."""
        with MultiplyAdds() as counter:
            result = self.run(func, args, kwargs)
        self.tape.fixed_macs += counter.total
        return result

    def constants(self, given: list[Tensor]) -> bool:
        """Whether all of `given` are constants of the code: with data, and no parameters."""
        return not any(t.is_meta or id(t) in self.names or id(t) in self.strangers for t in given)

    def meta(self, t: Tensor) -> Tensor:
        """Returns `t` without its data (`t` itself if it has none)."""
        if t.is_meta and id(t) not in self.names and id(t) not in self.strangers:
            return t
        known = self._meta.get(id(t))
        if known is None:
            self.use(t)
            known = (t, torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="meta"))
            self._meta[id(t)] = known  # keeps t alive, so that nothing else gets its id
        return known[1]

    def use(self, t: Any) -> None:
        """Notes that the forward computes with `t`, if it is a parameter or buffer."""
        if id(t) in self.names:
            self.tape.used.add(self.names[id(t)])
        elif id(t) in self.strangers:
            self.borrowed.add(self.strangers[id(t)])

    def writes(self, t: Any) -> None:
        """Notes that the forward may write to `t`, if it is a parameter or buffer."""
        name = self.names.get(id(t))
        if name is not None:
            self.tape.written.add(name)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Follows every call of a module within the block: keeps `stack`, reports and mends."""
        original: Any = nn.Module._call_impl  # __call__ is a slot: setting it visits every subclass

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if self.asleep:
                return original(module, *args, **kwargs)
            name = self.modules.get(id(module), "")
            self.stack.append(name)
            nth = self.calls.get(name, 0)
            self.calls[name] = nth + 1
            entered = Entered(name, nth, self.ids.at, len(self.tape.made), (args, kwargs))
            try:
                try:
                    if name not in self.still:
                        with torch._C.DisableTorchFunction():  # the labeller must not see this
                            self.ids.enter(entered)
                    result = self._run_module(original, module, args, kwargs)
                    if name in self.tape.movers:
                        with torch._C.DisableTorchFunction():
                            outs = [worn(t, self.names) for t in tensors_in(result)]
                            self.ids.leave(entered, outs)
                except Exception as error:  # noqa: BLE001  (forwards may raise anything)
                    result = self.ids.mend(self, module, entered, error)
            except BaseException:
                if not self.stuck:
                    self.stuck, self.stuck_args = name, (args, kwargs)
                raise
            finally:
                self.stack.pop()
            trail = trail_of(result) if isinstance(result, Tensor) else None
            if trail is not None and trail.place.module is None:
                trail.place.module, trail.place.call = name, nth
            return result

        nn.Module._call_impl = call  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            nn.Module._call_impl = original  # type: ignore[method-assign]

    def _run_module(self, original: Any, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Runs `module` by the `original` call, or by its one function where it comes to that."""
        direct = function_call(module, args, kwargs)
        if direct is None:
            return original(module, *args, **kwargs)
        with torch._C.DisableTorchFunction():
            return self._label(*direct)

    @property
    def running(self) -> str:
        """Name of the innermost module that runs."""
        return self.stack[-1] if self.stack else ""

    def place(self, name: str, t: Tensor, *, takes: bool = False) -> Place:
        """Returns the place of `t`, taken or returned by the running call of function `name`."""
        return Place(name, self.seen[name], labels_of(t), tuple(t.shape), takes=takes)

    # -- noting --------------------------------------------------------------------------------

    def moves_by_number(self) -> None:
        """Notes that the running code moves channels by numbers that a cut may make wrong."""
        self.tape.fragile = True
        self.tape.movers.add(self.running)

    def row(self, labels: Tensor, dim: int, size: int) -> Row | None:
        """Returns the labels [size] along `dim`; None where only other dimensions hold channels.

        Labels that vary along other dimensions, too, are tied: one weight reads all positions.
        """
        if labels.numel() != labels.size(dim):
            if labels.size(dim) == 1 and self.ids.elsewhere(dim, found=True):
                return None
            others = [d for d in range(labels.dim()) if d != dim]
            live = (labels & 1).amax(others, keepdim=True)
            first = labels.amin(others, keepdim=True) >> 1
            self.ids.tie(first.expand_as(labels), labels >> 1)
            labels = first * 2 + live
        return row_of(labels).of(size)

    # -- labels of parameters that are used directly -------------------------------------------

    def labels(self, t: Tensor) -> Tensor:
        """Returns the labels of `t`; a parameter used directly gets one label per element."""
        name = self.names.get(id(t))
        if name is None:
            return labels_of(t)
        if t.numel() > 1 or t.dim() != 1:
            self.tape.data.add(name)
        if not self.ids.frees(name, t):
            return labels_of(t)
        known = self.tape.free.get(name)
        if known is None:
            known = self.tape.free[name] = self.ids.new(t.numel()).view(t.shape)
        return known * 2
