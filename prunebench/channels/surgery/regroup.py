"""Which channels of grouped convolutions go together, where a shuffle lies between two of them.

The groups of a convolution must stay equally wide, so its channels go in sets with one of each
group. As traced, the k-th channels of all groups are such a set. Any other sets with one channel of
every group in front of the shuffle and one of every group behind it do as well: the order within a
group means nothing. `regroup` changes it, and the shuffle with it, so that the sets are those that
one would like to cut.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunebench.channels.example import Example, run_on
from prunebench.channels.gather import GatherChannels
from prunebench.channels.labels.tape import Call, Tape
from prunebench.channels.map import ChannelGroup, ChannelMap, Site
from prunebench.channels.members import named_tensors
from prunebench.channels.mode import in_mode
from prunebench.channels.tensors import tensors_in
from prunebench.errors import PruningError

#: largest change of the outputs that another order of additions explains, relative
ROUNDING = 1e-4


@dataclass(frozen=True, eq=False)
class Shuffle:
    """A permutation of channels between two convolutions of which one at least is grouped.

    Attributes:
        made: the convolution that makes them.
        gather: the shuffle.
        read: the convolution that reads them.
        fitted: (parameter or buffer, dimension) -> whether it lies behind the shuffle.
        alone: the channels as a group of as many classes, in the order in which they are made.
    """

    made: Call
    gather: Call
    read: Call
    fitted: dict[tuple[str, int], bool]
    alone: ChannelGroup

    @property
    def groups(self) -> int:
        """Of the convolutions that are grouped."""
        return max(self.made.groups, self.read.groups)


def regroup(
    model: nn.Module, cmap: ChannelMap, example: Example, scores: Callable[[Shuffle], Tensor | None]
) -> nn.Module:
    """Returns a copy of `model` that computes the same, whose channels of like scores go together.

    That is `model` itself if there is nothing to do.

    Args:
        model: in eval mode.
        cmap: its channel map.
        example: input to compare both with.
        scores: of each channel of a shuffle, in the order in which they are made; higher = rather
            gone. None leaves the shuffle as it is.

    Raises:
        PruningError: the copy computes something else.
    """
    found = [(one, score) for one in shuffles(cmap) if (score := scores(one)) is not None]
    if not found:
        return model
    made = deepcopy(model)
    named = dict(named_tensors(made))
    with torch.no_grad():
        for shuffle, score in found:
            _rearrange(made, named, shuffle, score)
    _require_same(model, made, example)
    return made


def shuffles(cmap: ChannelMap) -> list[Shuffle]:
    """Returns the shuffles whose channels are in one of two orders wherever a weight meets them."""
    tape = cmap.tape
    convs = [call for call in tape.calls if call.kind == "conv" and not call.turned]
    found = []
    for gather in (call for call in tape.calls if call.kind == "gather"):
        if sorted(gather.positions) != list(range(len(gather.inputs))):
            continue
        made = [call for call in convs if torch.equal(call.outputs, gather.inputs)]
        read = [call for call in convs if torch.equal(call.inputs, gather.outputs)]
        uses = [call for call in tape.calls if call.kind == "gather" and _meet(call, gather)]
        if len(made) != 1 or len(read) != 1 or len(uses) != 1:
            continue
        groups = {made[0].groups, read[0].groups} - {1}
        fitted = _fitted(tape, gather, read[0])
        if len(groups) == 1 and fitted is not None:
            alone = _alone(made[0], gather, fitted, tape)
            found.append(Shuffle(made[0], gather, read[0], fitted, alone))
    return found


def _meet(call: Call, gather: Call) -> bool:
    """Whether `call` is given channels that `gather` is given or returns."""
    return bool(torch.isin(call.inputs, gather.inputs).any())


def _fitted(tape: Tape, gather: Call, read: Call) -> dict[tuple[str, int], bool] | None:
    """Returns which dimensions hold the channels, and in which order; None if there is a third."""
    found = {}
    for (name, dim), ids in tape.reads.items():
        if name.startswith(gather.weight) or (name, dim) == (read.weight, 1):
            continue
        if torch.isin(ids, gather.inputs).any():
            behind = torch.equal(ids, gather.outputs)
            if not behind and not torch.equal(ids, gather.inputs):
                return None
            found[name, dim] = behind
    return found


def _alone(
    made: Call, gather: Call, fitted: dict[tuple[str, int], bool], tape: Tape
) -> ChannelGroup:
    """Returns the channels of a shuffle as a group of as many classes."""
    orders = (torch.arange(len(gather.inputs)), torch.tensor(gather.positions))
    roles: dict[str, list[Site]] = {"norm": [], "depthwise": [], "conv": []}
    for call in tape.calls:
        if (call.weight, 0) in fitted and call.kind in roles:
            order = orders[fitted[call.weight, 0]]
            roles[call.kind].append(Site(call.weight, 0, order))
    return ChannelGroup(
        name=made.module,
        size=len(gather.inputs),
        producers=tuple(roles["conv"]),
        norms=tuple(roles["norm"]),
        depthwise=tuple(roles["depthwise"]),
        consumers=(),
        residual=False,
    )


def together(scores: Tensor, shuffle: Shuffle) -> NDArray[np.int64]:
    """Returns channels [sets, groups], one of each group on either side, highest scores first.

    Where both sides are grouped, each set is the one whose lowest score is highest among the
    channels that are left, found by assignment. There always is one, for all groups have as many
    channels left.
    """
    score, groups = scores.double().numpy(), shuffle.groups
    place = np.argsort(np.array(shuffle.gather.positions))
    size = len(score) // groups
    front, behind = np.arange(len(score)) // size, place // size
    if shuffle.made.groups == 1 or shuffle.read.groups == 1:
        side = behind if shuffle.made.groups == 1 else front
        return np.lexsort((-score, side)).reshape(groups, size).T
    left = {(a, b): list[int]() for a in range(groups) for b in range(groups)}
    for channel in np.argsort(score, kind="stable").tolist():
        left[front[channel], behind[channel]].append(channel)  # highest last
    sets = np.empty((size, groups), np.int64)
    for number in range(size):
        for a, b in enumerate(_assigned(left, score, groups)):
            sets[number, a] = left[a, b].pop()
    return sets


def _assigned(
    left: dict[tuple[int, int], list[int]], score: NDArray[np.float64], groups: int
) -> list[int]:
    """Returns for each group in front the group behind, so that the lowest score is highest.

    Of several such assignments one through pairs of groups with many channels as good.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import, and rarely needed

    tops = sorted({score[channels[-1]] for channels in left.values() if channels})
    low, high, best = 0, len(tops), list[int]()
    while low < high:
        middle = (low + high) // 2
        many = np.array(
            [
                [sum(score[c] >= tops[middle] for c in left[a, b]) for b in range(groups)]
                for a in range(groups)
            ]
        )
        rows, columns = linear_sum_assignment(np.where(many > 0, many, -1e9), maximize=True)
        if (many[rows, columns] > 0).all():
            best, low = columns.tolist(), middle + 1
        else:
            high = middle
    return best


def _rearrange(
    model: nn.Module, named: dict[str, Tensor], shuffle: Shuffle, scores: Tensor
) -> None:
    """Puts the sets of a shuffle at one place of all groups, in place."""
    sets = together(scores, shuffle)
    old = np.array(shuffle.gather.positions)
    place = np.argsort(old)
    size = len(old) // shuffle.groups
    front, behind = sets.T.reshape(-1), old
    if shuffle.read.groups > 1:
        ordered = np.take_along_axis(sets, np.argsort(place[sets] // size, axis=1), axis=1)
        behind = ordered.T.reshape(-1)
    moved = torch.from_numpy(front), torch.from_numpy(place[behind])
    for (name, dim), later in shuffle.fitted.items():
        tensor = named[name]
        tensor.copy_(tensor.index_select(dim, moved[later].to(tensor.device)))
    weight = named[shuffle.read.weight]
    parts = zip(weight.chunk(shuffle.read.groups), moved[1].chunk(shuffle.read.groups), strict=True)
    width = weight.size(1)
    weight.copy_(
        torch.cat([part.index_select(1, own.to(part.device) % width) for part, own in parts])
    )
    gather = model.get_submodule(shuffle.gather.module)
    assert isinstance(gather, GatherChannels)
    gather.set_positions(np.argsort(front)[behind].tolist())


def _require_same(model: nn.Module, made: nn.Module, example: Example) -> None:
    """Raises PruningError unless both compute the same."""
    with torch.no_grad(), in_mode(model), in_mode(made):
        before = list(tensors_in(run_on(model, example)))
        after = list(tensors_in(run_on(made, example)))
    for a, b in zip(before, after, strict=True):
        error = float((a - b).abs().max() / a.abs().max().clamp(min=1e-30))
        if not error <= ROUNDING:
            raise PruningError(
                f"with its grouped channels in another order the network differs by {error:.1e} "
                "(relative); set criterion.regroup=false"
            )
