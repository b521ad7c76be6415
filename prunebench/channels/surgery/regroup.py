"""Chooses which channels of grouped convolutions are cut together, across a shuffle.

The groups of a convolution must stay equally wide, so its channels are cut in sets with one channel
of each group. As traced, the k-th channels of all groups are such a set. Any other sets with one
channel of every group before the shuffle and one of every group behind it do as well, since the
order within a group means nothing. `regroup` changes that order, and the shuffle with it, so that
channels with similar scores form a set.
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

#: largest relative change of the outputs that another order of additions explains
ROUNDING = 1e-4


@dataclass(frozen=True, eq=False)
class Shuffle:
    """A permutation of channels between two convolutions of which one at least is grouped.

    Attributes:
        made: the convolution that makes the channels.
        gather: the shuffle.
        read: the convolution that reads them.
        fitted: (parameter or buffer, dimension) that holds them -> whether behind the shuffle.
        alone: the channels as a group with a class for each, in the order in which they are made.
    """

    made: Call
    gather: Call
    read: Call
    fitted: dict[tuple[str, int], bool]
    alone: ChannelGroup

    @property
    def groups(self) -> int:
        """Number of groups of the grouped convolutions."""
        return max(self.made.groups, self.read.groups)


def regroup(
    model: nn.Module, cmap: ChannelMap, example: Example, scores: Callable[[Shuffle], Tensor | None]
) -> nn.Module:
    """Returns an equal copy of `model` in which channels of similar scores are cut together.

    Returns `model` itself if there is nothing to do.

    Args:
        model: a network in eval mode.
        cmap: its channel map.
        example: input on which both are compared.
        scores: function of a shuffle that returns a score for each of its channels, in the order in
            which they are made, higher = cut first; or None to leave the shuffle as it is.

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
    """Returns the shuffles whose channels every weight holds in one of the shuffle's two orders."""
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
    """Returns which dimensions hold the channels, and whether shuffled; None in a third order."""
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
    """Returns the channels of a shuffle as a group with a class for each."""
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
    """Returns the sets to cut, channels [sets, groups], highest scores first.

    A set has one channel of each group on either side. Where both sides are grouped, the next set
    is the one with the highest lowest score among the channels left, found by assignment; there
    always is one, since all groups have equally many channels left.
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
    """Returns the group behind for each group in front, so that the lowest score is highest.

    Among equal assignments it prefers pairs of groups with many channels of at least that score.
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
    """Permutes channels, in place, so that a set has the same position in all groups."""
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
    for was, now in zip(before, after, strict=True):
        error = float((was - now).abs().max() / was.abs().max().clamp(min=1e-30))
        if not error <= ROUNDING:
            raise PruningError(
                f"with its grouped channels in another order the network differs by {error:.1e} "
                "(relative); set criterion.regroup=false"
            )
