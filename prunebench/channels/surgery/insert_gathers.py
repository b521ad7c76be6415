"""Inserts gathers where the code of a network moves channels by fixed numbers.

The forward is captured as a `torch.fx` graph. Its labels are computed node by node, once for the
dense and once for the slimmed network. Operations that only move data may fail in the slimmed
network or yield something else; wherever such a result is *used*, it is replaced by one gather
from the nearest tensor that holds all the channels needed.
"""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from prunebench.channels.gather import GatherChannels
from prunebench.channels.groups import build_map
from prunebench.channels.labels.forward import following, labelled_input
from prunebench.channels.labels.labeller import (
    Labeller,
    Tape,
    labels_of,
    map_tensors,
    put,
    tensors_in,
)
from prunebench.channels.labels.rules import MOVES
from prunebench.channels.map import ChannelMap
from prunebench.channels.plan import Plan
from prunebench.channels.surgery.recheck import MisplacedError, Replay, StuckError
from prunebench.errors import PruningError

FAILURES = (MisplacedError, PruningError, RuntimeError, ValueError, IndexError, TypeError)


class _Capture(fx.Tracer):
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


def capture(model: nn.Module) -> fx.Graph:
    """Returns the forward of `model` as a graph that holds in training and in eval mode.

    Raises:
        PruningError: the forward decides by values, or differs between the modes.
    """
    flags = [(module, module.training) for module in model.modules()]
    graphs = []
    try:
        for training in (True, False):
            for module, _ in flags:
                module.training = training
            graph = fx.GraphModule(model, _Capture().trace(model)).graph
            graph.eliminate_dead_code()
            graphs.append(graph)
    except Exception as error:
        raise PruningError(f"its forward cannot be captured: {error}") from error
    finally:
        for module, flag in flags:
            module.training = flag
    described = [
        [(n.op, str(n.target), str(n.args), str(n.kwargs)) for n in g.nodes] for g in graphs
    ]
    if described[0] != described[1]:
        raise PruningError("its forward differs between training and eval mode")
    return graphs[1]


class _Dense(fx.Interpreter):
    """Runs the dense network and remembers the labels of every node."""

    def __init__(self, module: fx.GraphModule, labeller: Labeller) -> None:
        """Starts with nothing noted."""
        super().__init__(module, garbage_collect_values=False)
        self.labeller = labeller
        self.starts: dict[str, tuple[int, int]] = {}
        self.labels: dict[str, Any] = {}
        self.shapes: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Runs one node."""
        tape = self.labeller.tape
        self.starts[n.name] = (len(tape.made), len(tape.ties))
        result = super().run_node(n)
        with torch._C.DisableTorchFunction():  # we look at labels, the labeller must not
            self.labels[n.name] = map_tensors(result, labels_of)
            self.shapes[n.name] = map_tensors(result, lambda t: tuple(t.shape))
        return result


class _Broken:
    """Stands for a result that the slimmed network cannot compute."""


class _Rewriter(fx.Interpreter):
    """Runs the slimmed network node by node and mends what its nodes are given."""

    def __init__(self, module: fx.GraphModule, replay: Replay, dense: _Dense) -> None:
        """Works on the graph of `module` itself."""
        super().__init__(module, garbage_collect_values=False)
        self.extra_traceback = False
        self.replay, self.dense = replay, dense
        self.mended: dict[fx.Node, fx.Node] = {}
        self.gathers: dict[str, GatherChannels] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Mends the inputs of `n` unless it only moves data; then runs it."""
        self.replay.made, self.replay.tied = self.dense.starts[n.name]
        moves = _moves(n)
        if not moves:
            with torch._C.DisableTorchFunction():
                for source in list(n.all_input_nodes):
                    self._mend(n, source)
        if any(isinstance(self.env.get(source), _Broken) for source in n.all_input_nodes):
            return _Broken()
        try:
            return super().run_node(n)
        except FAILURES as error:
            if moves:
                return _Broken()
            with torch._C.DisableTorchFunction():
                raise self._stuck(n, str(error)) from error

    def _stuck(self, n: fx.Node, why: str) -> StuckError:
        """Returns the error that names the groups `n` is concerned with."""
        held: set[str] = set()
        for source in n.all_input_nodes:
            for labels in tensors_in(self.dense.labels.get(source.name)):
                held |= self.replay.groups([put(torch.empty(labels.shape, device="meta"), labels)])
        return StuckError(str(n.target), why.split("\n")[0], held)

    def _mend(self, n: fx.Node, source: fx.Node) -> None:
        """Replaces `source` by a gather as an input of `n`, if it does not hold what it should."""
        labels = self.dense.labels.get(source.name)
        if not isinstance(labels, Tensor):
            return
        value = self.env[source]
        want = self.replay.left(labels >> 1)
        broken = isinstance(value, _Broken)
        if not broken and torch.equal(want, (labels_of(value) >> 1).reshape(-1)):
            return
        if source not in self.mended:
            dims = [d for d, size in enumerate(labels.shape) if size > 1]
            if len(dims) != 1:
                raise self._stuck(n, "channels lie along several dimensions")
            self.mended[source] = self._gather(n, source, dims[0], want)
        n.replace_input_with(source, self.mended[source])

    def _gather(self, n: fx.Node, source: fx.Node, dim: int, want: Tensor) -> fx.Node:
        """Inserts a gather of `want` before `n`; returns its node."""
        shape = list(self.dense.shapes[source.name])
        shape[dim] = len(want)
        holders = self._holders(source)
        if self._zeros.issuperset(want.tolist()):  # any tensor of that size will do
            holders += [node for node in n.all_input_nodes if isinstance(self.env[node], Tensor)]
        for holder in holders:
            value = self.env[holder]
            held = (labels_of(value) >> 1).reshape(-1)
            others = [size for d, size in enumerate(value.shape) if d != dim]
            if len(held) != value.size(dim) or others != shape[:dim] + shape[dim + 1 :]:
                continue
            at = {label: position for position, label in enumerate(held.tolist())}
            index = [at.get(label, -1) for label in want.tolist()]
            if all(i >= 0 or int(w) in self._zeros for i, w in zip(index, want, strict=True)):
                return self._insert(n, holder, index, dim, want, shape)
        raise self._stuck(n, "no tensor holds the channels that are needed")

    @cached_property
    def _zeros(self) -> set[int]:
        return {int(label) for ids in self.replay.cmap.tape.zeros for label in ids}

    def _holders(self, source: fx.Node) -> list[fx.Node]:
        """Returns the nodes that `source` was moved from, nearest first, it included."""
        found, seen = [source], {source}
        for node in found:
            if _moves(node):
                for up in node.all_input_nodes:
                    if up not in seen:
                        seen.add(up)
                        found.append(up)
        return [node for node in found if isinstance(self.env.get(node), Tensor)]

    def _insert(
        self, n: fx.Node, holder: fx.Node, index: list[int], dim: int, *made: Any
    ) -> fx.Node:
        want, shape = made
        name = f"gather_{len(self.gathers)}"
        while hasattr(self.module, name):
            name += "_"
        self.gathers[name] = GatherChannels(index, dim=dim)
        graph = n.graph
        with graph.inserting_before(n):
            node = graph.create_node("call_module", name, (holder,))
        value = torch.empty(shape, dtype=self.env[holder].dtype, device="meta")
        view = [-1 if d == dim else 1 for d in range(len(shape))]
        self.env[node] = put(value, (want * 2).view(view))
        self.dense.labels[node.name] = None
        return node


def _moves(n: fx.Node) -> bool:
    """Whether `n` only moves data (or computes with shapes)."""
    if n.op == "call_module" or n.op in ("placeholder", "output", "get_attr"):
        return False
    name = n.target if isinstance(n.target, str) else getattr(n.target, "__name__", "")
    return name in MOVES


def insert_gathers(
    model: nn.Module, slimmed: nn.Module, cmap: ChannelMap, plan: Plan, reason: StuckError
) -> nn.Module:
    """Returns `slimmed` as a graph module with gathers where they are needed.

    Args:
        model: the dense network.
        slimmed: its cut copy, whose forward moves channels wrongly.
        cmap: the channel map of `model`.
        plan: what was kept.
        reason: what went wrong in the forward of `slimmed` as it stands.

    Raises:
        StuckError: gathers cannot mend it.
    """
    try:
        graph = capture(model)
    except PruningError as error:
        raise StuckError(reason.where, f"{reason.why}; {error}", reason.groups) from error
    whole = fx.GraphModule(model, copy.deepcopy(graph))
    tape = Tape(example=cmap.tape.example)
    labeller = Labeller(whole, tape)
    image = labelled_input(labeller, tape.example)
    dense = _Dense(whole, labeller)
    with following(labeller, whole):
        result = dense.run(image)
    for out in tensors_in(result):
        labeller.freeze(labels_of(out) >> 1, "the output of the network")
    graph_map = build_map(whole, tape, cmap.frozen_groups)
    plan.check(graph_map)
    device = next((t.device for t in slimmed.parameters()), torch.device("cpu"))
    small = fx.GraphModule(slimmed, graph, class_name=type(slimmed).__name__)
    replay = Replay(small, graph_map, graph_map.keeps(plan))
    rewriter = _Rewriter(small, replay, dense)
    image = labelled_input(replay, tape.example)
    with following(replay, small):
        rewriter.run(image)
    for name, gather in rewriter.gathers.items():
        small.add_submodule(name, gather.to(device))
    graph = small.graph
    graph.eliminate_dead_code()
    graph.lint()
    small.recompile()
    _keep_the_rest(small, slimmed)
    return small


def _keep_the_rest(small: fx.GraphModule, slimmed: nn.Module) -> None:
    """Gives `small` what the captured forward does not use, and the training flags."""
    held = {id(t) for t in [*small.parameters(), *small.buffers()]}
    for name, module in slimmed.named_modules():
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if name and any(id(t) not in held for t in own):
            small.add_submodule(name, module)
    flags = {name: module.training for name, module in slimmed.named_modules()}
    for name, module in small.named_modules():
        module.training = flags.get(name, slimmed.training)
