"""Channel maps: checks of plans, and sums over the sites of a channel."""

from __future__ import annotations

import pytest
from torch import Tensor, arange, cat, nn, ones, randn

from prunebench.channels import Plan, trace
from prunebench.errors import PruningError


def test_check_names_the_group() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
    cmap = trace(net, randn(1, 3, 2, 2))
    cmap.check(Plan({"0": [0, 3]}))
    with pytest.raises(PruningError, match=r"no group '9' in this network; groups: 0"):
        cmap.check(Plan({"9": [0]}))
    with pytest.raises(PruningError, match=r"4 channels \(0 to 3\), but channel 4"):
        cmap.check(Plan({"0": [4]}))


def test_values_of_a_site_are_added_up_by_class() -> None:
    class Halves(nn.Module):
        """Two convolutions side by side, both read by one linear layer behind a flatten."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 3, 1)
            self.last = nn.Linear(10, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(cat([self.a(x), self.b(x)], 1).flatten(1))

    [site] = trace(Halves(), randn(1, 1, 1, 2)).group("b").consumers
    assert site.positions.tolist() == [4, 5, 6, 7, 8, 9]  # two pixels of each channel
    total = ones(3)
    site.add_to(total, arange(10.0))
    assert total.tolist() == [1 + 4 + 5, 1 + 6 + 7, 1 + 8 + 9]
