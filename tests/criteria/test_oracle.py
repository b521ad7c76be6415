"""The oracle, compared with networks that are really slimmed, one channel at a time."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from prunebench.channels import Plan, mask, slim, trace
from prunebench.contracts import Evidence
from prunebench.criteria.oracle import Oracle
from prunebench.errors import ConfigError
from prunebench.models import ModelSpec
from prunebench.options import option


class Net(nn.Module):
    """A residual stream of four channels, a block with five, a linear layer behind a flatten."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.first = nn.Conv2d(4, 5, 3, padding=1)
        self.second = nn.Conv2d(5, 4, 3, padding=1)
        self.hidden, self.fc = nn.Linear(36, 3), nn.Linear(3, 3)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = (x + self.second(self.first(x).relu())).relu()
        return self.fc(self.hidden(x.flatten(1)).relu())


def evidence_for(network, images, labels):
    cmap = trace(network, images[:1])
    return Evidence(network, cmap, tuple(cmap.groups), images, labels, 0)


@pytest.fixture
def evidence():
    torch.manual_seed(0)
    network = Net().eval()
    nn.init.normal_(network.norm.bias)
    nn.init.normal_(network.norm.running_mean)
    return evidence_for(network, torch.randn(7, 3, 5, 5), torch.tensor([0, 1, 2, 2, 1, 0, 1]))


@pytest.mark.parametrize("chunk", [3, 7])
def test_it_is_the_loss_of_the_slimmed_network_less_that_of_the_whole(evidence, chunk):
    network = evidence.network

    def loss(model):
        return nn.functional.cross_entropy(model(evidence.images), evidence.labels).item()

    ranks = Oracle(change="rise", num_samples=7, chunk=chunk).rank(evidence)
    sizes = Oracle(change="absolute", num_samples=7, chunk=chunk).rank(evidence)
    assert set(ranks) == {"stem", "first", "hidden"}
    for group in evidence.groups:
        for gone in range(group.size):
            rest = [c for c in range(group.size) if c != gone]
            slimmed = slim(network, evidence.cmap, Plan({group.name: rest}))
            expected = loss(slimmed) - loss(network)
            assert ranks[group.name].scores[gone].item() == pytest.approx(expected, abs=2e-6)
            assert sizes[group.name].scores[gone].item() == abs(ranks[group.name].scores[gone])
    assert min(ranks["first"].scores.min(), ranks["stem"].scores.min()) < 0  # some do harm


def test_scores_are_those_of_whole_forwards_to_the_last_bit():
    torch.manual_seed(0)
    network = option("model", "resnet20", ModelSpec, width=0.125).build((3, 32, 32), 4).eval()
    images, labels = torch.randn(3, 3, 32, 32), torch.tensor([0, 3, 1])
    facts = evidence_for(network, images, labels)
    small = [group for group in facts.groups if group.size <= 8]
    some = (small[0], small[-1])
    ranks = Oracle(change="rise", num_samples=3, chunk=2).rank(replace(facts, groups=some))

    def loss(model):
        losses = [
            nn.functional.cross_entropy(model(x).double(), y, reduction="sum").item()
            for x, y in zip(images.split(2), labels.split(2), strict=True)
        ]
        return sum(losses) / 3

    with torch.no_grad():
        whole = loss(network)
        for group in some:
            for gone in (0, group.size - 1):
                rest = [c for c in range(group.size) if c != gone]
                masked = mask(network, facts.cmap, Plan({group.name: rest}))
                assert ranks[group.name].scores[gone].item() == loss(masked) - whole


def test_by_hand():
    # logits (a, b) with a = 2x and b = x through one channel each; x = 1, the label is 0
    network = nn.Sequential(
        nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(2, 2)
    )
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([2.0, 1.0]).view(2, 1, 1, 1))
        network[3].weight.copy_(torch.eye(2))
        network[3].bias.zero_()
    facts = evidence_for(network.eval(), torch.ones(1, 1, 1, 1), torch.tensor([0]))
    scores = Oracle(change="rise", num_samples=1, chunk=1).rank(facts)["0"].scores
    whole, without_a, without_b = (torch.tensor(x).exp().log1p() for x in (-1.0, 1.0, -2.0))
    expected = torch.stack([without_a - whole, without_b - whole]).double()
    torch.testing.assert_close(scores, expected, atol=1e-6, rtol=0)


def test_dead_channels_score_zero_and_the_network_is_left_alone(evidence):
    with torch.no_grad():
        evidence.network.second.weight[:, 2] = 0
        evidence.network.first.weight[2] = 9
    before = {name: value.clone() for name, value in evidence.network.state_dict().items()}
    scores = Oracle(change="absolute", num_samples=4, chunk=4).rank(evidence)["first"].scores
    assert scores[2] == 0
    assert (scores == 0).sum() == 1
    after = evidence.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_groups_only_channel_scores_zero():
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(1, 2)).eval()
    facts = evidence_for(network, torch.ones(1, 1, 1, 1), torch.tensor([0]))
    ranks = Oracle(change="rise", num_samples=1, chunk=1).rank(facts)
    assert ranks["0"].scores.tolist() == [0.0]


def test_ranges():
    assert Oracle(change="rise", num_samples=5, chunk=2).images_needed == 5
    with pytest.raises(ConfigError, match="change must be one of rise, absolute; got 'drop'"):
        Oracle(change="drop", num_samples=5, chunk=2)
    with pytest.raises(ConfigError, match="num_samples must be at least 1, got 0"):
        Oracle(change="rise", num_samples=0, chunk=2)
    with pytest.raises(ConfigError, match="chunk must be at least 1, got 0"):
        Oracle(change="rise", num_samples=5, chunk=0)
