"""Grouped convolutions keep the same number of channels in every group, chosen by score."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from prunebench.channels import GatherChannels, Plan, slim, trace, verify
from prunebench.channels.surgery.regroup import regroup, shuffles, together
from prunebench.models.shufflenet import rotation, transposition


class Unit(nn.Module):
    """A grouped pair with a shuffle and a depthwise convolution between."""

    def __init__(self, index, first=3, second=3, width=24):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.one = nn.Conv2d(6, width, 1, groups=first)
        self.bn = nn.BatchNorm2d(width)
        self.shuffle = GatherChannels(index)
        self.deep = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.bn2 = nn.BatchNorm2d(width)
        self.two = nn.Conv2d(width, 9, 1, groups=second)
        self.fc = nn.Linear(9, 4)

    def forward(self, x):
        x = self.shuffle(self.bn(self.one(self.stem(x))).relu())
        return self.fc(self.two(self.bn2(self.deep(x))).mean((2, 3)))


def unit(index, **sizes):
    torch.manual_seed(0)
    network = Unit(index, **sizes).double()
    for norm in (network.bn, network.bn2):
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            nn.init.normal_(tensor)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return network.eval(), torch.randn(2, 3, 4, 4, dtype=torch.float64)


@pytest.mark.parametrize("index", [rotation(24, 3), transposition(24, 3)])
@pytest.mark.parametrize(("first", "second"), [(3, 3), (1, 3), (3, 1)])
def test_chosen_channels_go_in_equal_counts_and_the_network_stays_the_same(index, first, second):
    network, x = unit(index, first=first, second=second)
    scores = torch.rand(24)
    made = regroup(network, trace(network, x), x, lambda _: scores)
    torch.testing.assert_close(made(x), network(x), rtol=1e-10, atol=1e-10)
    cmap = trace(made, x)
    group = cmap.group("one")
    assert group.size == 8
    plan = Plan({"one": [2, 3, 4, 5, 6, 7]})
    small = slim(made, cmap, plan)
    assert small.one.out_channels == 18
    assert verify(made, small, cmap, plan, x) < 1e-12
    # an oracle that knows nothing of the map: these channels are zero in the original
    gone = together(scores, shuffles(trace(network, x))[0])[:2].flatten()
    places = [index.index(int(channel)) for channel in gone]
    for side, at, count in ((first, gone, 8), (second, np.array(places), 8)):
        if side > 1:
            assert (np.bincount(at // count, minlength=3) == 2).all()
    with torch.no_grad():
        for place in places:
            rows = slice(None) if second == 1 else slice(place // 8 * 3, place // 8 * 3 + 3)
            network.two.weight[rows, place % (24 // second)] = 0
    torch.testing.assert_close(small(x), network(x), rtol=1e-10, atol=1e-10)


def most(dead, index, groups=3):
    """Returns how many channels of equal counts can be dead, by a linear programme over them."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # slow to import

    size = len(dead) // groups
    place = np.argsort(index)
    rows = [(np.arange(len(dead)) // size == g) * 1.0 for g in range(groups)]
    rows += [(place // size == g) * 1.0 for g in range(groups)]
    matrix = np.hstack([np.array(rows), -np.ones((2 * groups, 1))])
    cost = np.append(-np.ones(len(dead)), 0)
    found = milp(
        cost, constraints=LinearConstraint(matrix, 0, 0), integrality=np.ones(len(cost)),
        bounds=Bounds(0, np.append(dead, size)),
    )  # fmt: skip
    return round(-found.fun)


@pytest.mark.parametrize(("shuffle", "seed"), list(product([rotation, transposition], range(3))))
def test_nearly_as_many_sets_are_dead_as_can_be(shuffle, seed):
    index = shuffle(60, 3)
    dead = np.random.default_rng(seed).random(60) < 0.4
    network, x = unit(index, width=60)
    sets = together(torch.from_numpy(dead * 1.0), shuffles(trace(network, x))[0])
    assert sorted(sets.flatten().tolist()) == list(range(60))
    found = 3 * int(dead[sets].all(1).sum())
    best = most(dead, index)
    assert best - 3 <= found <= best
    tied = 3 * int(dead.reshape(3, 20).all(0).sum())
    assert found > tied


def test_a_shuffle_that_others_read_too_is_left_alone():
    class Both(Unit):
        def forward(self, x):
            x = self.bn(self.one(self.stem(x))).relu()
            x = self.shuffle(x)
            x = self.deep(x) + x[:, [1, 0, *range(2, 24)]]
            return self.fc(self.two(self.bn2(x)).mean((2, 3)))

    torch.manual_seed(0)
    network, x = Both(rotation(24, 3)).double().eval(), torch.randn(2, 3, 4, 4).double()
    made = regroup(network, trace(network, x), x, lambda _: torch.rand(24))
    torch.testing.assert_close(made(x), network(x), rtol=1e-10, atol=1e-10)
