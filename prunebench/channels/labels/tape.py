"""The tape: what one labelled forward notes, and the records it notes them in."""

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

FREE_LIMIT = 1 << 16  # elements of a parameter that is labelled one by one when used directly


@dataclass
class Place:
    """Where in a forward a tensor appears: the `nth` call of a function, or of a module.

    Attributes:
        function, nth: name of a torch function and its call number, from 0.
        labels: the labels of that tensor.
        shape: its shape.
        module, call: a module that takes or returns that very tensor, and its call number; or None.
        takes: the tensor is the input of that call, else its result.
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

    @property
    def reads(self) -> int:
        """The dimension of the weight along which its inputs lie; of the first two."""
        return 0 if self.turned else 1


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


def trail_of(t: Tensor) -> Trail | None:
    """Returns the trail that leads to `t`, if there is one."""
    return getattr(t, "_channel_trail", None)


def leave_trail(t: Tensor, trail: Trail | None) -> None:
    """Makes `trail` the one that leads to `t`; with None there is none any more."""
    t._channel_trail = trail  # type: ignore[attr-defined]


#: behind the name of a gather's index: what it gathers from; no part of a name is empty
FROM = "..from"


def owner(weight: str) -> str:
    """Returns the module of a full parameter name: the layer, where its weight is parametrized."""
    outer, parametrized, _ = f".{weight}".partition(".parametrizations.")
    return outer[1:] if parametrized else weight.rpartition(".")[0]


def _seen(t: Tensor) -> Seen:
    return Seen(t, labels_of(t), values_of(t))


@dataclass
class Tape:
    """Everything one labelled forward noted, in the order of the forward.

    Attributes:
        count: how many label ids there are; id 0 stands for what can never be cut.
        made: ids that were handed out together.
        ties: pairs of equally many ids, each of which lives and dies with its partner.
        zeros: ids of channels that hold zeros and nothing else.
        gates: ids of factors that scale other channels.
        frozen: ids that can never be cut, and why.
        reads: (parameter or buffer, dimension) -> the id that each index belongs to.
        free: name of a parameter that is used directly -> one id per element.
        data: names of all parameters that are used directly.
        normed: direction of a weight -> how the weight is computed from it.
        unweighted: (module, ids, groups) of every norm without a weight.
        calls: every use of weights.
        refused: module -> why its channels cannot be cut.
        fixed_macs: multiply-adds that no cut changes.
        spread_macs: multiply-adds that each of some ids costs, and these ids.
        example: an input, or several (`Example`), without data.
        used: names of the parameters and buffers that the forward computes with.
        written: names of those that it may write to.
        fragile: whether the code of the network moves channels by numbers that a cut may belie.
        activations, blocks: weight -> where its channels are activated, and where a max pool
            follows.
        done: weights whose channels have been activated or read.
        steps: what every function that computes is given.
        movers: modules whose own code moves channels by numbers.
        bare: (steps before it, dimension) of what goes along a dimension while others hold
            channels.
        entered: (module, call number) -> what it is given.
        returned: (module, call number) -> what a mover returns.
        captured: (module, call number) -> its forward as a graph, once surgery has needed it.
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
        """How many steps there are so far."""
        return len(self.steps)

    def elsewhere(self, dim: int, *, found: bool) -> bool:
        """Notes where other dimensions than `dim` hold channels; returns whether they do."""
        if found:
            self.bare.add((self.at, dim))
        return found

    def frees(self, name: str, t: Tensor) -> bool:
        """Returns whether the elements of parameter `t` are labelled when it is used directly."""
        return 1 < t.numel() <= FREE_LIMIT

    def step(self, step: Step) -> None:
        """Notes what the next function that computes is given."""
        self.steps.append(step)

    def enter(self, call: Entered) -> None:
        """Notes what a module is given."""
        self.entered[call.name, call.nth] = call._replace(given=map_tensors(call.given, _seen))

    def leave(self, call: Entered, result: list[Worn]) -> None:
        """Notes what a module returns that moves channels by numbers."""
        self.returned[call.name, call.nth] = result

    def mend(self, labeller: Any, module: Any, call: Entered, error: Exception) -> Any:
        """Does nothing for a forward that fails."""
        raise error

    def pass_on(self, trail: Trail, place: Place) -> None:
        """Notes that the channels of producers on `trail` that are not done are at `place` now."""
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
        """Notes that ids `a` and `b` (same shape) live and die together."""
        if a is not b:
            self.ties.append((a.reshape(-1), b.reshape(-1)))

    def read(self, name: str, dim: int, ids: Tensor) -> None:
        """Notes that index i of dimension `dim` of parameter `name` belongs to ``ids[i]``."""
        self.tie(self.reads.setdefault((name, dim), ids), ids)

    def freeze(self, ids: Tensor, reason: str) -> None:
        """Notes that `ids` can never be cut."""
        self.frozen.append((ids.reshape(-1), reason))
