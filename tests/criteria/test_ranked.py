"""What a user's own criterion returns is checked at once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from prunebench.channels import trace
from prunebench.contracts import Evidence, GroupRank
from prunebench.criteria import Criterion
from prunebench.criteria.ranked import ranked
from prunebench.errors import PruningError


@dataclass(frozen=True)
class Own(Criterion):
    answer: Callable[[Evidence], Any]

    def rank(self, evidence: Evidence) -> dict[str, GroupRank]:
        return self.answer(evidence)


def facts() -> Evidence:
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(16, 2),
    ).eval()  # fmt: skip
    images = torch.zeros(1, 3, 6, 6)
    cmap = trace(network, images)
    return Evidence(network, cmap, tuple(cmap.groups), images, torch.zeros(1), 0)


def scores(size: int) -> torch.Tensor:
    return torch.arange(size).double()


def every(made: Callable[[int], Any]) -> Callable[[Evidence], Any]:
    return lambda evidence: {group.name: made(group.size) for group in evidence.groups}


def spoiled(evidence: Evidence) -> dict[str, GroupRank]:
    evidence.network[1].running_mean.data.add_(1)  # which raises no version counter
    return every(lambda size: GroupRank(scores(size)))(evidence)


def trained(evidence: Evidence) -> dict[str, GroupRank]:
    evidence.network.train()
    return every(lambda size: GroupRank(scores(size)))(evidence)


def test_what_keeps_the_contract_passes() -> None:
    found = ranked(Own(every(lambda size: GroupRank(scores(size), (0, size - 1)))), facts())
    assert [rank.kept for rank in found.values()] == [(0, 5), (0, 3)]
    assert ranked(Own(every(lambda size: GroupRank(scores(size).float()))), facts())


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda evidence: None, r"Own\.rank must return group name -> GroupRank, got NoneType"),
        (lambda evidence: {}, r"Own\.rank leaves out group '0'"),
        (every(scores), r"group '0': expected a GroupRank, got Tensor of torch\.float64"),
        (
            every(lambda n: GroupRank(scores(n).numpy())),
            "of floats, got ndarray of float64",
        ),
        (every(lambda n: GroupRank(scores(n).long())), r"of floats, got Tensor of torch\.int64"),
        (every(lambda n: GroupRank(scores(1))), r"of shape \[6\], one for each class, got \[1\]"),
        (every(lambda n: GroupRank(scores(n) / 0)), "the score of class 0 is nan; scores must be"),
        (every(lambda n: GroupRank(scores(n), (2, 1))), r"ascending class indices below 6, got \["),
        (
            every(lambda n: GroupRank(scores(n), (n,))),
            r"ascending class indices below 6, got \[6\]",
        ),
        (spoiled, r"changed the network, which it must not: 1\.running_mean"),
        (trained, r"changed the network, which it must not: .*training"),
    ],
)
def test_what_breaks_it_is_named(answer: Callable[[Evidence], Any], says: str) -> None:
    with pytest.raises(PruningError, match=says):
        ranked(Own(answer), facts())
