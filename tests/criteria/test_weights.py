"""l1, l2 and random on networks whose filters can be read off."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from prunebench.analysis.filters import filters
from prunebench.channels import Site, trace
from prunebench.contracts import Evidence
from prunebench.criteria.l1 import L1
from prunebench.criteria.l2 import L2
from prunebench.criteria.random import Random
from prunebench.errors import ConfigError


class Residual(nn.Module):
    """A stem and one block that writes into the stem's channels; a classifier behind."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.first = nn.Conv2d(4, 5, 3, padding=1)
        self.norm = nn.BatchNorm2d(5)
        self.second = nn.Conv2d(5, 4, 3, padding=1, bias=False)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        x = self.stem(x).relu()
        x = x + self.second(self.norm(self.first(x)).relu())
        return self.fc(x.relu().mean((2, 3)))


def evidence(network, seed=0):
    network.eval()
    images = torch.zeros(1, 3, 6, 6)
    cmap = trace(network, images)
    labels = torch.zeros(1, dtype=torch.int64)
    return Evidence(network, cmap, tuple(cmap.groups), images, labels, seed)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Residual()


def test_l1_sums_absolute_weights_of_a_filter_by_hand():
    network = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1), nn.Flatten())
    network[0].weight.data = torch.tensor([-3.0, 1.0, 2.0]).reshape(3, 1, 1, 1)
    network[0].bias.data = torch.tensor([0.0, 100.0, 0.0])
    network.eval()
    images = torch.zeros(1, 1, 2, 2)
    cmap = trace(network, images)
    facts = Evidence(network, cmap, tuple(cmap.groups), images, torch.zeros(1).long(), 0)
    assert L1(normalize="none").rank(facts)["0"].scores.tolist() == [3.0, 1.0, 2.0]
    assert L1(normalize="mean").rank(facts)["0"].scores.tolist() == [1.5, 0.5, 1.0]


@pytest.mark.parametrize("block", [1, 40, 1 << 18], ids=["a row at a time", "some", "all"])
@pytest.mark.parametrize("criterion", [L1, L2])
def test_norms_of_a_plain_and_a_residual_group(network, criterion, block, monkeypatch):
    monkeypatch.setattr("prunebench.analysis.filters.BLOCK", block)
    ranks = criterion(normalize="none").rank(evidence(network))
    power = 1 if criterion is L1 else 2
    for names in (["first"], ["stem", "second"]):
        weights = [getattr(network, name).weight for name in names]
        for channel in range(len(weights[0])):
            values = [v for w in weights for v in w[channel].flatten().double().tolist()]
            expected = sum(abs(v) ** power for v in values) ** (1 / power)
            assert ranks[names[0]].scores[channel].item() == pytest.approx(expected, rel=1e-12)
    for rank in ranks.values():
        assert rank.kept is None
        assert rank.scores.dtype == torch.float64
        assert not rank.scores.requires_grad


def test_mean_normalisation_makes_layers_comparable_and_keeps_the_order(network):
    facts = evidence(network)
    raw, scaled = L1(normalize="none").rank(facts), L1(normalize="mean").rank(facts)
    for name, rank in scaled.items():
        assert rank.scores.mean().item() == pytest.approx(1)
        assert torch.equal(rank.scores.argsort(), raw[name].scores.argsort())


def test_a_dead_layer_has_finite_scores(network):
    network.first.weight.data.zero_()
    assert L2(normalize="mean").rank(evidence(network))["first"].scores.tolist() == [0.0] * 5


def test_filters_of_a_class_with_several_positions_lie_side_by_side():
    producer = Site("weight", 0, torch.tensor([1, 0, -1, 1, 0, 2]))
    group = SimpleNamespace(name="fc", size=3, producers=(producer,))
    network = nn.Linear(2, 6)
    network.weight.data = torch.arange(12.0).reshape(6, 2)
    table = filters(network, group)
    assert table.tolist() == [[2, 3, 8, 9], [0, 1, 6, 7], [10, 11, 0, 0]]


def test_filters_of_a_transposed_convolution_are_its_second_dimension():
    network = nn.Sequential(nn.ConvTranspose2d(2, 3, 2), nn.ReLU(), nn.Conv2d(3, 1, 1))
    network.eval()
    cmap = trace(network, torch.zeros(1, 2, 3, 3))
    if cmap.groups:
        expected = network[0].weight.detach().double().transpose(0, 1).flatten(1)
        assert torch.equal(filters(network, cmap.groups[0]), expected)


def test_random_depends_on_seed_and_name_only(network):
    first, again = Random().rank(evidence(network)), Random().rank(evidence(network))
    other = Random().rank(evidence(network, seed=1))
    for name, rank in first.items():
        assert torch.equal(rank.scores, again[name].scores)
        assert not torch.equal(rank.scores, other[name].scores)
    facts = evidence(network)
    alone = Evidence(network, facts.cmap, facts.groups[1:2], facts.images, facts.labels, facts.seed)
    name = facts.groups[1].name
    assert torch.equal(Random().rank(alone)[name].scores, first[name].scores)
    assert not torch.equal(first["stem"].scores, first["first"].scores[:4])


@pytest.mark.parametrize("criterion", [L1, L2])
def test_choices(criterion):
    with pytest.raises(ConfigError, match="normalize must be one of none, mean; got 'max'"):
        criterion(normalize="max")
