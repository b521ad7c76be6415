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
from prunebench.channels.labels.forward import following, freeze_outputs, labelled_input
from prunebench.channels.labels.labeller import Labeller
from prunebench.channels.labels.rules import RULES
from prunebench.channels.labels.tape import Tape
from prunebench.channels.labels.tensors import along, labels_of, put, tensors_in
from prunebench.channels.map import ChannelMap
from prunebench.channels.plan import Plan
from prunebench.channels.surgery.graph import LabelledNodes, complete, forward_graph, only_moves
from prunebench.channels.surgery.recheck import MisplacedError, Recheck, StuckError
from prunebench.errors import PruningError

FAILURES = (MisplacedError, PruningError, RuntimeError, ValueError, IndexError, TypeError)


class _Broken:
    """Stands for a result that the slimmed network cannot compute."""


class _Rewriter(fx.Interpreter):
    """Runs the slimmed network node by node and mends what its nodes are given."""

    def __init__(self, module: fx.GraphModule, recheck: Recheck, dense: LabelledNodes) -> None:
        """Works on the graph of `module` itself."""
        super().__init__(module, garbage_collect_values=False)
        self.extra_traceback = False
        self.recheck, self.dense = recheck, dense
        self.mended: dict[fx.Node, fx.Node] = {}
        self.gathers: dict[str, GatherChannels] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Mends the inputs of `n` unless it only moves data; then runs it."""
        self.recheck.made, self.recheck.tied = self.dense.starts[n.name]
        moves = only_moves(n)
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
                held |= self.recheck.groups([put(torch.empty(labels.shape, device="meta"), labels)])
        return StuckError(getattr(n.target, "__name__", str(n.target)), why.split("\n")[0], held)

    def _mend(self, n: fx.Node, source: fx.Node) -> None:
        """Replaces `source` by a gather as an input of `n`, if it does not hold what it should."""
        labels = self.dense.labels.get(source.name)
        if not isinstance(labels, Tensor):
            return
        value = self.env[source]
        want = self.recheck.left(labels >> 1)
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
        return {int(label) for ids in self.recheck.cmap.tape.zeros for label in ids}

    def _holders(self, source: fx.Node) -> list[fx.Node]:
        """Returns the nodes that `source` was moved from, nearest first, it included."""
        found, seen = [source], {source}
        for node in found:
            if only_moves(node):
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
        self.env[node] = put(value, along(want * 2, dim, len(shape)))
        self.dense.labels[node.name] = None
        return node


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
        graph = forward_graph(model)
    except PruningError as error:
        raise StuckError(reason.where, f"{reason.why}; {error}", reason.groups) from error
    dense, graph_map = _labelled(fx.GraphModule(model, copy.deepcopy(graph)), cmap)
    graph_map.check(plan)
    device = next((t.device for t in slimmed.parameters()), torch.device("cpu"))
    small = fx.GraphModule(slimmed, graph, class_name=type(slimmed).__name__)
    recheck = Recheck(graph_map, graph_map.keeps(plan))
    rewriter = _Rewriter(small, recheck, dense)
    labeller = Labeller(small, Tape(), RULES, recheck)
    image = labelled_input(labeller, cmap.tape.example)
    with following(labeller, small):
        rewriter.run(image)
    for name, gather in rewriter.gathers.items():
        small.add_submodule(name, gather.to(device))
    graph = small.graph
    graph.eliminate_dead_code()
    graph.lint()
    small.recompile()
    complete(small, slimmed)
    return small


def _labelled(whole: fx.GraphModule, cmap: ChannelMap) -> tuple[LabelledNodes, ChannelMap]:
    """Returns the labels of every node of the captured dense forward, and its channel map."""
    tape = Tape(example=cmap.tape.example)
    labeller = Labeller(whole, tape, RULES)
    image = labelled_input(labeller, tape.example)
    dense = LabelledNodes(whole, labeller)
    with following(labeller, whole):
        result = dense.run(image)
    freeze_outputs(labeller, result)
    return dense, build_map(whole, tape, cmap.frozen_groups)
