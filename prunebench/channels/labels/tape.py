"""The tape: the notes of one labelled forward, and the records that they consist of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from prunebench.channels.labels.steps import Entered, Seen, Step, Worn
from prunebench.channels.labels.tensors import labels_of
from prunebench.channels.labels.values import values_of
from prunebench.channels.tensors import map_tensors
from prunebench.channels.weight_norm import WeightNorm

FREE_LIMIT = 1 << 16  # elements; a larger parameter that is used directly gets no labels


@dataclass
class Place:
    """Where in a forward a tensor appears: at the `nth` call of a function, or of a module.

    Attributes:
        function, nth: name of a torch function, and the number of the call, from 0.
        labels: the labels of that tensor.
        shape: its shape.
        module, call: a module that takes or returns that tensor (or None), and the call's number.
        takes: whether the tensor is the input of that call, not its result.
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
        kind: ``conv``, ``linear``, ``depthwise``, ``norm``, ``recurrent`` or ``gather``.
        module: qualified name of the module that owns the weight.
        weight: full name of the weight.
        inputs: label ids [in] along the channel dimension.
        live: int64 [in]; 1 where a channel is not zero although its producer is zeroed.
        outputs: label ids [out].
        macs: multiply-adds per kept pair of (weight row, weight column).
        groups: number of groups of the convolution or norm.
        place: where the input appears.
        turned: whether it is a transposed convolution, with a weight [in, out / groups, ...].
        positions: the index of a gather.
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

    @property
    def reads(self) -> int:
        """The dimension of the weight along which its inputs lie, 0 or 1."""
        return 0 if self.turned else 1


@dataclass
class Trail:
    """Which producers a tensor comes straight from, and where it was last seen.

    Attributes:
        producers: names of their weights.
        raw: whether no activation has followed yet.
        place: where it was last seen; the module is filled in when one returns the tensor.
    """

    producers: tuple[str, ...]
    raw: bool
    place: Place


def trail_of(t: Tensor) -> Trail | None:
    """Returns the trail that leads to `t`, if there is one."""
    return getattr(t, "_channel_trail", None)


def leave_trail(t: Tensor, trail: Trail | None) -> None:
    """Makes `trail` the one that leads to `t`; None removes it."""
    t._channel_trail = trail  # type: ignore[attr-defined]


#: ends the name under which `Tape.reads` has what a gather picks from; no real name has two dots
FROM = "..from"


def owner(weight: str) -> str:
    """Returns the layer that owns a parameter, given its full name, parametrized or not."""
    outer, parametrized, _ = f".{weight}".partition(".parametrizations.")
    return outer[1:] if parametrized else weight.rpartition(".")[0]


def _seen(t: Tensor) -> Seen:
    return Seen(t, labels_of(t), values_of(t))


@dataclass
class Tape:
    """Everything one labelled forward noted, in the order of the forward.

    Attributes:
        count: how many label ids there are; id 0 stands for what can never be cut.
        made: vectors of ids that were handed out together.
        ties: pairs of equally many ids, each of which is cut together with its partner.
        zeros: ids of channels that hold nothing but zeros.
        gates: ids of factors that scale other channels.
        frozen: ids that can never be cut, and why.
        reads: (parameter or buffer, dimension) -> the id that each index belongs to.
        free: name of a parameter that is used directly -> one id per element.
        data: names of all parameters that are used directly.
        normed: name of a weight norm's direction -> how the weight is computed from it.
        unweighted: (module, ids, groups) of every norm without a weight.
        calls: every use of weights.
        refused: module -> why its channels cannot be cut.
        fixed_macs: multiply-adds that no cut changes.
        spread_macs: (multiply-adds, ids) where each of the ids costs that much by itself.
        example: an input, or several (`Example`), without data.
        used: names of the parameters and buffers that the forward computes with.
        written: names of those that it may write to.
        fragile: whether the network's own code uses numbers that a cut may make wrong.
        activations, blocks: weight -> where its channels are activated, and the same behind a max
            pool where one follows.
        done: weights whose channels have been activated or read.
        steps: the inputs of every function that computes.
        movers: modules whose own code moves channels by numbers.
        bare: (steps before it, dimension) of reads and reductions along a dimension while others
            hold channels.
        entered: (module, call number) -> its arguments.
        returned: (module, call number) -> the results of a mover.
        captured: (module, call number) -> its forward as a graph, where surgery needed it.
    """

    count: int = 1
    made: list[Tensor] = field(default_factory=list)
    ties: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    zeros: list[Tensor] = field(default_factory=list)
    gates: list[Tensor] = field(default_factory=list)
    frozen: list[tuple[Tensor, str]] = field(default_factory=list)
    reads: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    free: dict[str, Tensor] = field(default_factory=dict)
    data: set[str] = field(default_factory=set)
    normed: dict[str, WeightNorm] = field(default_factory=dict)
    unweighted: list[tuple[str, Tensor, int]] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    fixed_macs: int = 0
    spread_macs: list[tuple[int, Tensor]] = field(default_factory=list)
    example: Any = None
    used: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    fragile: bool = False
    activations: dict[str, Place] = field(default_factory=dict)
    blocks: dict[str, Place] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    steps: list[Step] = field(default_factory=list)
    movers: set[str] = field(default_factory=set)
    bare: set[tuple[int, int]] = field(default_factory=set)
    entered: dict[tuple[str, int], Entered] = field(default_factory=dict)
    returned: dict[tuple[str, int], list[Worn]] = field(default_factory=dict)
    captured: dict[tuple[str, int], Any] = field(default_factory=dict)

    @property
    def at(self) -> int:
        """Number of steps so far."""
        return len(self.steps)

    def elsewhere(self, dim: int, *, found: bool) -> bool:
        """Notes where dimensions other than `dim` hold channels; returns whether they do."""
        if found:
            self.bare.add((self.at, dim))
        return found

    def frees(self, name: str, t: Tensor) -> bool:
        """Returns whether the elements of parameter `t` are labelled when it is used directly."""
        return 1 < t.numel() <= FREE_LIMIT

    def step(self, step: Step) -> None:
        """Notes the inputs of the next function that computes."""
        self.steps.append(step)

    def enter(self, call: Entered) -> None:
        """Notes the arguments of a module."""
        self.entered[call.name, call.nth] = call._replace(given=map_tensors(call.given, _seen))

    def leave(self, call: Entered, result: list[Worn]) -> None:
        """Notes the results of a module that moves channels by numbers."""
        self.returned[call.name, call.nth] = result

    def mend(self, labeller: Any, module: Any, call: Entered, error: Exception) -> Any:
        """Raises `error`: the forward of a dense network is not mended."""
        raise error

    def pass_on(self, trail: Trail, place: Place) -> None:
        """Moves the activations and blocks of producers on `trail` to `place`, unless done."""
        for producer in trail.producers:
            if producer not in self.done:
                self.activations[producer] = self.blocks[producer] = place

    def new(self, count: int) -> Tensor:
        """Returns `count` new label ids."""
        ids = torch.arange(self.count, self.count + count)
        self.count += count
        self.made.append(ids)
        return ids

    def tie(self, a: Tensor, b: Tensor) -> None:
        """Notes that ids `a` and `b` (same shape) are cut together."""
        if a is not b:
            self.ties.append((a.reshape(-1), b.reshape(-1)))

    def read(self, name: str, dim: int, ids: Tensor) -> None:
        """Notes that index i of dimension `dim` of parameter `name` belongs to ``ids[i]``."""
        self.tie(self.reads.setdefault((name, dim), ids), ids)

    def freeze(self, ids: Tensor, reason: str) -> None:
        """Notes that `ids` can never be cut."""
        self.frozen.append((ids.reshape(-1), reason))
