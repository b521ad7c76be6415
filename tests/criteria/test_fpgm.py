"""FPGM, compared with distances worked by hand and a plain double loop."""

import math

import pytest
import torch
from torch import nn

from prunebench.channels import trace
from prunebench.contracts import Evidence
from prunebench.criteria.fpgm import Fpgm, distances
from prunebench.errors import ConfigError


def test_by_hand():
    table = torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]]).double()
    assert distances(table).tolist() == [15.0, 10.0, 15.0]


def test_the_middle_goes_first_where_l1_would_remove_the_smallest():
    table = torch.tensor([[1.0], [5.0], [6.0], [10.0]]).double()
    # 1: 4+5+9, 5: 4+1+5, 6: 5+1+4, 10: 9+5+4
    assert distances(table).tolist() == [18.0, 10.0, 10.0, 18.0]
    assert distances(table).argmin() != table.abs().sum(1).argmin()


def test_duplicates_are_at_distance_nothing_from_each_other():
    table = torch.randn(6, 40, generator=torch.Generator().manual_seed(0)).double()
    table[4] = table[1]
    pair = torch.stack([table[1], table[4]])
    assert distances(pair).tolist() == [0.0, 0.0]
    assert distances(table)[1] == distances(table)[4]


@pytest.mark.parametrize("norm_first", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("seed", range(5))
def test_equals_a_double_loop(seed, norm_first):
    table = torch.randn(11, 9, generator=torch.Generator().manual_seed(seed)).double()
    rows = table.tolist()
    by_norm = sorted(range(11), key=lambda c: math.hypot(*rows[c]))
    first = by_norm[: int(11 * norm_first)]
    rest = [c for c in range(11) if c not in first]
    expected = {c: sum(math.dist(rows[c], rows[j]) for j in rest) for c in rest}
    scores = distances(table, norm_first=norm_first)
    for channel, value in expected.items():
        assert scores[channel].item() == pytest.approx(value, rel=1e-12)
    assert scores.argsort().tolist() == first + sorted(rest, key=expected.__getitem__)


def test_a_long_layer_is_as_exact_as_a_short_one():
    table = 100 + 1e-6 * torch.randn(60, 20, generator=torch.Generator().manual_seed(0)).double()
    expected = torch.stack([(row - table).norm(dim=1).sum() for row in table])
    torch.testing.assert_close(distances(table), expected, rtol=1e-9, atol=0)


def test_ranks_the_groups_of_a_network():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 1)).eval()
    images = torch.zeros(1, 3, 5, 5)
    cmap = trace(network, images)
    facts = Evidence(network, cmap, tuple(cmap.groups), images, torch.zeros(1).long(), 0)
    raw = Fpgm(norm_first=0.0, normalize="none").rank(facts)["0"].scores
    assert torch.equal(raw, distances(network[0].weight.detach().double().flatten(1)))
    scaled = Fpgm(norm_first=0.0, normalize="mean").rank(facts)["0"].scores
    torch.testing.assert_close(scaled, raw / raw.mean())


def test_ranges():
    with pytest.raises(ConfigError, match=r"norm_first must lie in \[0, 1\), got 1"):
        Fpgm(norm_first=1, normalize="none")
    with pytest.raises(ConfigError, match="normalize must be one of none, mean; got 'l2'"):
        Fpgm(norm_first=0, normalize="l2")
