"""Rewrites the captured forward of a module so that it serves the slimmed network.

It runs node by node. Operations that only move data may fail there or give a wrong result. Where
such a result is *used*, it is replaced by one gather from a tensor that holds all the elements
needed.
"""

from __future__ import annotations

import copy
import math
from functools import cached_property
from itertools import product
from typing import Any

import torch
from torch import Tensor, fx, nn

from prunebench.channels.gather import GatherChannels
from prunebench.channels.labels.labeller import Labeller
from prunebench.channels.labels.steps import Worn, worn
from prunebench.channels.labels.tensors import put
from prunebench.channels.labels.values import SHIFT, packed, put_values, ranks
from prunebench.channels.mode import match_modes
from prunebench.channels.surgery.graph import Captured, complete, described, only_moves
from prunebench.channels.surgery.recheck import Recheck, StuckError
from prunebench.channels.tensors import nested
from prunebench.errors import first_line


class _Broken:
    """Stands for a result that the slimmed network cannot compute."""


class Rewriter(fx.Interpreter):
    """Runs a slimmed module node by node and mends the inputs of its nodes."""

    def __init__(
        self, module: nn.Module, labeller: Labeller, recheck: Recheck, dense: Captured
    ) -> None:
        """Works on a copy of the graph that `module` has in the dense network."""
        graph = copy.deepcopy(dense.graph)
        super().__init__(module, garbage_collect_values=False, graph=graph)
        self.extra_traceback = False
        self.labeller, self.recheck, self.dense = labeller, recheck, dense
        self.mended: dict[fx.Node, fx.Node] = {}
        self.gathers: dict[str, GatherChannels] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Mends the inputs of `n` unless it only moves data; then runs it."""
        self.recheck.made, self.recheck.at = self.dense.starts[n.name]
        moves = only_moves(n)
        if not moves:
            with torch._C.DisableTorchFunction():
                for source in list(n.all_input_nodes):
                    self._mend(n, source)
        if any(isinstance(self.env.get(source), _Broken) for source in n.all_input_nodes):
            return _Broken()
        try:
            return super().run_node(n)
        except Exception as error:
            if moves:
                return _Broken()
            with torch._C.DisableTorchFunction():
                raise self._stuck(n, first_line(error)) from error

    def _stuck(self, n: fx.Node, why: str) -> StuckError:
        """Returns an error that names the groups whose channels `n` is given."""
        rows = []
        for source in n.all_input_nodes:
            rows += [one.labels for one in nested(self.dense.worn.get(source.name), Worn)]
        where = self.labeller.running or "the forward of the network"
        name = getattr(n.target, "__name__", str(n.target))
        return StuckError(where, f"{name}: {why}", self.recheck.groups(rows))

    def _mend(self, n: fx.Node, source: fx.Node) -> None:
        """Replaces input `source` of `n` by a gather, unless it holds what it should."""
        was, value = self.dense.worn.get(source.name), self.env[source]
        if not isinstance(was, Worn) or was.parameter:
            return
        if not isinstance(value, _Broken) and self._right(source):
            return
        if source not in self.mended:
            self.mended[source] = self._gather(n, source, was)
        n.replace_input_with(source, self.mended[source])

    def _right(self, node: fx.Node) -> bool:
        """Whether `node` holds what is left of it in the dense network."""
        return self.recheck.agrees(
            self.dense.worn[node.name], worn(self.env[node], self.labeller.names)
        )

    def _gather(self, n: fx.Node, source: fx.Node, was: Worn) -> fx.Node:
        """Inserts nodes before `n` that make what is left of `source`; returns the last one.

        They gather its channels from a tensor that holds them along one dimension, or along several
        that are flattened first, and unflatten them where they must lie along several.
        """
        sizes = self._sizes_left(n, was)
        dim, want = min(sizes), self.recheck.want(was)
        shape = list(was.shape)
        shape[dim : dim + len(sizes)] = [len(want)]
        zeros = [one & ((1 << SHIFT) - 1) in self._zeros for one in want.tolist()]
        holders = self._holders(source)
        if all(zeros):  # any tensor of that size will do
            holders += [node for node in n.all_input_nodes if isinstance(self.env[node], Tensor)]
        ones = len(shape) - max(d for d, size in enumerate(shape) if d == dim or size != 1) - 1
        for holder, new in product(holders, range(ones + 1)):
            now = worn(self.env[holder], self.labeller.names)
            rest = shape[dim + 1 : len(shape) - new]
            end = len(now.shape) - len(rest)
            row = _row(now, dim, end)
            if row is None or (now.shape[:dim], now.shape[end:]) != (was.shape[:dim], tuple(rest)):
                continue
            index = _index_of(want, row)
            if all(i >= 0 or zero for i, zero in zip(index, zeros, strict=True)):
                sizes |= dict.fromkeys(range(dim + len(sizes), dim + len(sizes) + new), 1)
                with n.graph.inserting_before(n):
                    return self._insert(holder, range(dim, end), index, want, sizes)
        raise self._stuck(n, "no tensor holds the channels that are needed")

    def _sizes_left(self, n: fx.Node, was: Worn) -> dict[int, int]:
        """Returns adjacent dimensions along which channels lie -> the size left of each."""
        dims = [d for d, size in enumerate(was.labels.shape) if size > 1]
        dims = dims or [d for d, size in enumerate(was.shape) if d and size == 1][:1]
        if not dims:
            raise self._stuck(n, "what it is given depends on how many channels there are")
        stays = self.recheck.stays(was)
        sizes = {d: int(stays.movedim(d, 0).flatten(1).any(1).sum()) for d in dims}
        box = math.prod(sizes.values()) == len(self.recheck.want(was))
        if not box or dims != [*range(dims[0], dims[-1] + 1)]:
            raise self._stuck(n, "channels lie along several dimensions")
        if dims[0] == 0:  # where a batch would have further images
            raise self._stuck(n, "channels lie along the dimension of images")
        return sizes

    @cached_property
    def _zeros(self) -> set[int]:
        return {label for ids in self.recheck.cmap.tape.zeros for label in ids.tolist()}

    def _holders(self, source: fx.Node) -> list[fx.Node]:
        """Returns the nodes whose data was moved to `source`, farthest first; `source` is last."""
        found, seen = [source], {source}
        for node in found:
            if only_moves(node):
                for up in node.all_input_nodes:
                    if up not in seen:
                        seen.add(up)
                        found.append(up)
        return [node for node in found[::-1] if isinstance(self.env.get(node), Tensor)]

    def _insert(
        self, holder: fx.Node, dims: range, index: list[int], want: Tensor, sizes: dict[int, int]
    ) -> fx.Node:
        """Gathers `index` from `holder`, flattened along `dims`; unflattens it to `sizes`."""
        graph, dim, node, held = holder.graph, dims[0], holder, self.env[holder]
        if len(dims) > 1:
            node = graph.create_node("call_method", "flatten", (node, dim, dims[-1]))
        if index != list(range(math.prod(held.shape[dim : dims.stop]))):
            name = f"gather_{len(self.gathers)}"
            while hasattr(self.module, name):
                name += "_"
            self.gathers[name] = GatherChannels(index, dim=dim)
            node = graph.create_node("call_module", name, (node,))
        if len(sizes) > 1:  # the last size above 1 becomes -1: a further cut may leave less of it
            several = list(sizes.values())
            several[max(i for i, size in enumerate(several) if not i or size > 1)] = -1
            node = graph.create_node("call_method", "unflatten", (node, dim, tuple(several)))
        if node is holder:
            return node
        shape = [*held.shape[:dim], *sizes.values(), *held.shape[dims.stop :]]
        both = want.view([sizes.get(d, 1) for d in range(len(shape))])
        value = torch.empty(shape, dtype=held.dtype, device="meta")
        put(value, (both & ((1 << SHIFT) - 1)) * 2)
        self.env[node] = put_values(value, both >> SHIFT)
        return node

    def changes(self) -> Any:
        """Returns a value that is equal for two calls of a module that any cut mends alike."""
        labels = [one.labels for one in nested(self.dense.worn, Worn)]
        cmap = self.recheck.cmap
        return described(self.graph), [cmap.classes(one >> 1).tolist() for one in labels]

    def finished(self) -> fx.GraphModule:
        """Returns the module with its gathers, ready to run, in the modes that it had.

        Only after the replay, when everything that forwards replaced is restored.
        """
        slimmed = self.module
        device = next((t.device for t in slimmed.parameters()), torch.device("cpu"))
        for name, gather in self.gathers.items():
            slimmed.add_module(name, gather.to(device))
        self.graph.owning_module = slimmed  # type: ignore[assignment]  # asked for side effects
        self.graph.eliminate_dead_code()
        self.graph.lint()
        mended = fx.GraphModule(slimmed, self.graph, class_name=type(slimmed).__name__)
        complete(mended, slimmed)
        match_modes(mended, slimmed)
        return mended


def _row(now: Worn, dim: int, end: int) -> Tensor | None:
    """Returns what `now` wears along dimensions `dim` to `end` - 1, flattened.

    None where it varies along other dimensions, too.
    """
    held = packed(now.labels >> 1, now.values)
    if end <= dim or held.numel() != math.prod(held.shape[dim:end]):
        return None
    return held.reshape(held.shape[dim:end]).expand(now.shape[dim:end]).reshape(-1)


def _index_of(want: Tensor, held: Tensor) -> list[int]:
    """Returns where each element of `want` [n] lies in `held` [m]; -1 where it does not.

    The k-th of equal elements is matched with the k-th of its like.
    """
    keys = zip(held.tolist(), ranks(held).tolist(), strict=True)
    at = {key: position for position, key in enumerate(keys)}
    wanted = zip(want.tolist(), ranks(want).tolist(), strict=True)
    return [at.get(key, -1) for key in wanted]
