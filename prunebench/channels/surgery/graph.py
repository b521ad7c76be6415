"""The forward of a network as a `torch.fx` graph: captured, labelled, and made a module again."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from prunebench.channels.gather import GatherChannels
from prunebench.channels.labels.labeller import Labeller
from prunebench.channels.labels.rules import MOVES
from prunebench.channels.labels.steps import worn
from prunebench.channels.members import named_modules
from prunebench.channels.mode import in_mode
from prunebench.channels.surgery.recheck import Recheck
from prunebench.channels.tensors import map_tensors
from prunebench.channels.untouched import untouched
from prunebench.errors import PruningError


class _Parts(fx.Proxy):
    """Stands for the parts that a tensor is split into."""

    def __len__(self) -> int:
        """Returns the number of parts."""
        return _count(self.node) or 0


def _count(node: fx.Node) -> int | None:
    """Returns into how many parts `node` splits a tensor; None if its arguments do not say."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    parts = node.args[1] if len(node.args) > 1 else next(iter(node.kwargs.values()), None)
    if name in ("chunk", "tensor_split") and isinstance(parts, int):
        return parts
    if name in ("split", "split_with_sizes") and isinstance(parts, (list, tuple)):
        return len(parts)
    return None


class _Tracer(fx.Tracer):
    """Captures a forward; a module whose code cannot be captured becomes one node."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether `m` is one node: standard layers, and whatever owns weights or asks for mode."""
        if isinstance(m, GatherChannels) or super().is_leaf_module(m, module_qualified_name):
            return True
        inner = [child for child in m.modules() if child is not m]
        owns = any(p is not None for p in [*m._parameters.values(), *m._buffers.values()])
        if any(True for child in inner for _ in child.parameters(recurse=False)):
            return False
        code = getattr(type(m).forward, "__code__", None)
        return owns or (not inner and (code is None or "training" in code.co_names))

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Returns what stands for the result of `node`."""
        return _Parts(node, self) if _count(node) is not None else super().proxy(node)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """Iterates over the parts of a split tensor, where the code says how many there are."""
        count = _count(obj.node)
        if count is None:
            return super().iter(obj)
        return iter([operator.getitem(obj, at) for at in range(count)])

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Captures the inside of `m`, or `m` as a whole where that fails."""
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception as error:  # noqa: BLE001  (any code may fail on symbolic values)
            try:
                path = self.path_of_module(m)
            except NameError:
                raise error from None
            return self.create_proxy("call_module", path, args, kwargs)


def forward_graph(model: nn.Module) -> fx.Graph:
    """Returns the forward of `model` as a graph that holds in training and in eval mode.

    Raises:
        PruningError: the forward decides by values, or differs between the modes.
    """
    graph, asked = _captured(model, training=False)
    if asked:
        other, _ = _captured(model, training=True)
        if described(graph) != described(other):
            raise PruningError("its forward differs between training and eval mode")
    for node in graph.nodes:
        if isinstance(node.type, str):  # an annotation that TorchScript cannot read
            node.type = None
    return graph


def _captured(model: nn.Module, *, training: bool) -> tuple[fx.Graph, bool]:
    """Returns the forward of `model` in one mode, and whether its code asks for the mode."""
    try:
        with untouched(model), in_mode(model, training=training), _mode_watched() as asked:
            return _Tracer().trace(model), bool(asked)
    except Exception as error:
        raise PruningError(f"its forward cannot be captured: {error}") from error


@contextmanager
def _mode_watched() -> Iterator[list[nn.Module]]:
    """Yields a list that collects the modules whose mode is asked for within the block."""
    asked: list[nn.Module] = []

    def mode(module: nn.Module) -> bool:
        asked.append(module)
        return bool(vars(module).get("training"))

    def change(module: nn.Module, training: bool) -> None:
        vars(module)["training"] = training

    nn.Module.training = property(mode, change)  # type: ignore[assignment]
    try:
        yield asked
    finally:
        del nn.Module.training


def described(graph: fx.Graph) -> list[tuple[str, ...]]:
    """Returns operation, target and arguments of each node, to compare captured forwards."""
    return [(n.op, str(n.target), str(n.args), str(n.kwargs)) for n in graph.nodes]


class LabelledNodes(fx.Interpreter):
    """Runs a captured forward and remembers the labels and value numbers of every node.

    Attributes:
        starts: node -> how many label vectors and steps came before it.
        worn: node -> what its result wears, which may be nested.
    """

    def __init__(
        self, module: nn.Module, graph: fx.Graph, labeller: Labeller, recheck: Recheck
    ) -> None:
        """Starts with nothing noted."""
        super().__init__(module, garbage_collect_values=False, graph=graph)
        self.extra_traceback = False
        self.labeller, self.recheck = labeller, recheck
        self.starts: dict[str, tuple[int, int]] = {}
        self.worn: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Runs one node."""
        self.starts[n.name] = (self.recheck.made, self.recheck.at)
        result = super().run_node(n)
        with torch._C.DisableTorchFunction():  # we look at labels, the labeller must not
            self.worn[n.name] = map_tensors(result, lambda t: worn(t, self.labeller.names))
        return result


class Captured(NamedTuple):
    """The captured and labelled forward of a module of the dense network.

    Attributes:
        graph: the forward; never changed.
        starts, worn: those of `LabelledNodes`.
    """

    graph: fx.Graph
    starts: dict[str, tuple[int, int]]
    worn: dict[str, Any]


def only_moves(n: fx.Node) -> bool:
    """Whether `n` only moves data (or computes with shapes)."""
    if n.op == "call_module" or n.op in ("placeholder", "output", "get_attr"):
        return False
    name = n.target if isinstance(n.target, str) else getattr(n.target, "__name__", "")
    return name in MOVES


def complete(small: fx.GraphModule, slimmed: nn.Module) -> None:
    """Adds to `small` the parts of `slimmed` that the captured forward does not use."""
    held = {id(t) for t in [*small.parameters(), *small.buffers()]}
    for name, module in named_modules(slimmed):
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if name and any(id(t) not in held for t in own):
            small.add_submodule(name, module)
    for name, parameter in slimmed._parameters.items():
        if parameter is not None and not hasattr(small, name):
            small.register_parameter(name, parameter)
    for name, buffer in slimmed._buffers.items():
        if buffer is not None and not hasattr(small, name):
            kept = name not in slimmed._non_persistent_buffers_set
            small.register_buffer(name, buffer, persistent=kept)
    for name, value in vars(slimmed).items():  # the code that calls the module may read these
        if not name.startswith("_") and not hasattr(small, name):
            setattr(small, name, value)
