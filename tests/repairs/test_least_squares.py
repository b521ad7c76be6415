"""The least-squares repair inside networks: which weights it changes, and which it does not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from prunebench.channels import Plan, slim, trace, verify
from prunebench.contracts import Evidence
from prunebench.criteria.thinet import Thinet
from prunebench.errors import ConfigError
from prunebench.repairs.least_squares import LeastSquares


def repair(**changes):
    values = {
        "ridge": 1e-8, "collect": "all", "num_samples": 50,
        "per_image": 10, "rows_per_channel": 0, "chunk": 4,
    }  # fmt: skip
    return LeastSquares(**values | changes)


def evidence(network, shape=(3, 8, 8), count=12):
    network.eval()
    images = torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))
    cmap = trace(network, images[:1])
    return Evidence(network, cmap, tuple(cmap.groups), images, torch.zeros(count).long(), 0)


def chain(consumer, *between, channels=8):
    torch.manual_seed(0)
    first = nn.Conv2d(3, channels, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), *between, consumer)


NETWORKS = {
    "conv": lambda: chain(nn.Conv2d(8, 6, 3, padding=1)),
    "strided behind pooling": lambda: chain(nn.Conv2d(8, 6, 3, 2, padding=1), nn.MaxPool2d(2)),
    "grouped": lambda: chain(nn.Conv2d(8, 6, 3, groups=2)),
    "depthwise between": lambda: chain(
        nn.Conv2d(8, 6, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU()
    ),
    "linear behind flatten": lambda: chain(nn.Linear(8 * 16, 6), nn.MaxPool2d(2), nn.Flatten()),
    "linear behind average": lambda: chain(nn.Linear(8, 6), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
}


def output(network, images):
    with torch.no_grad():
        return network(images).double()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_next_layer_comes_as_near_as_one_factor_per_channel_allows(name):
    network = NETWORKS[name]()
    facts = evidence(network)
    [group] = facts.groups
    plan = Plan({group.name: list(range(group.size // 2))})
    folded = repair().fold(facts, plan)
    smaller = slim(folded, facts.cmap, plan)
    assert verify(folded, smaller, facts.cmap, plan, facts.images) < 1e-5
    full = output(network, facts.images)
    bare = output(slim(network, facts.cmap, plan), facts.images)
    fitted = output(smaller, facts.images)
    # what each kept channel adds, by leaving all others out
    consumer = network[-1]
    bias = consumer.bias.detach().double().view(1, -1, *[1] * (full.dim() - 2))
    columns = [
        output(slim(network, facts.cmap, Plan({group.name: [c]})), facts.images) - bias
        for c in plan.kept[group.name]
    ]
    x = torch.stack([column.flatten() for column in columns], dim=1).numpy()
    y = (full - bias).flatten().numpy()
    best = x @ np.linalg.lstsq(x, y, rcond=None)[0]
    assert (fitted - bias).flatten().numpy() == pytest.approx(best, abs=1e-4 * np.abs(y).max())
    assert (fitted - full).square().sum() < (bare - full).square().sum()


def test_the_network_its_biases_and_its_other_layers_stay():
    network = NETWORKS["conv"]()
    facts = evidence(network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    folded = repair().fold(facts, Plan({"0": [0, 2, 5]}))
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    after = folded.state_dict()
    changed = [name for name, tensor in before.items() if not torch.equal(tensor, after[name])]
    assert changed == ["2.weight"]
    factors = after["2.weight"] / before["2.weight"]
    for channel in range(8):
        assert (factors[:, channel] == 1).all() == (channel not in (0, 2, 5))
        assert torch.allclose(factors[:, channel], factors[0, channel, 0, 0])


def test_cutting_nothing_changes_nothing():
    network = NETWORKS["conv"]()
    facts = evidence(network)
    assert repair().fold(facts, Plan({})) is network
    assert repair().fold(facts, Plan({"0": range(8)})) is network


def test_only_the_groups_of_the_step_are_fitted():
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    network = nn.Sequential(*layers)
    facts = evidence(network)
    facts = replace(facts, groups=facts.groups[1:])
    folded = repair().fold(facts, Plan({"2": [0, 1]}))
    assert torch.equal(folded[2].weight, network[2].weight)
    assert not torch.equal(folded[4].weight, network[4].weight)


class Branches(nn.Module):
    """One producer read by two layers, by one of them behind a concatenation."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.other = nn.Conv2d(3, 2, 1)
        self.left = nn.Conv2d(6, 4, 3)
        self.right = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        stem = self.stem(x).relu()
        both = torch.cat([self.other(x), stem], dim=1)
        return self.left(stem).mean((2, 3)), self.right(both).mean((2, 3))


def test_each_consumer_gets_its_own_factors_and_other_channels_none():
    torch.manual_seed(0)
    network = Branches()
    facts = evidence(network)
    folded = repair().fold(facts, Plan({"stem": [1, 3, 4]}))
    left = (folded.left.weight / network.left.weight)[0, :, 0, 0]
    right = (folded.right.weight / network.right.weight)[0, :, 0, 0]
    assert (right[:2] == 1).all()
    kept = [1, 3, 4]
    assert not torch.isclose(left[kept], right[2:][kept]).any()


def test_a_channel_makes_up_for_its_double_and_dead_ones_do_no_harm():
    network = NETWORKS["conv"]()
    with torch.no_grad():
        for tensor in (network[0].weight, network[0].bias):
            tensor[3] = 2 * tensor[1]
            tensor[6] = 0
        network[2].weight[:, 3] = network[2].weight[:, 1]
    facts = evidence(network)
    plan = Plan({"0": [0, 1, 2, 4, 5, 6, 7]})
    folded = repair().fold(facts, plan)
    factors = (folded[2].weight / network[2].weight)[0, :, 0, 0]
    assert factors[1].item() == pytest.approx(3, rel=1e-5)
    assert factors[6] == 1
    smaller = slim(folded, facts.cmap, plan)
    full = output(network, facts.images)
    assert (output(smaller, facts.images) - full).abs().max() < 1e-5 * full.abs().max()


def test_enough_samples_fit_like_all_entries_and_few_do_not_fail():
    network = NETWORKS["conv"]()
    facts = evidence(network)
    plan = Plan({"0": [0, 1, 2, 3, 4]})
    exact = repair().fold(facts, plan)[2].weight
    many = repair(collect="sampled", per_image=2000).fold(facts, plan)[2].weight
    assert torch.allclose(many, exact, atol=0.1 * exact.abs().max().item())
    few = repair(collect="sampled", num_samples=1, per_image=2).fold(facts, plan)[2].weight
    assert few.isfinite().all()


def of_thinet(**changes):
    values = {
        "search": "remove", "balance": False, "collect": "sampled", "num_samples": 50,
        "per_image": 10, "rows_per_channel": 0, "chunk": 4,
    }  # fmt: skip
    return Thinet(**values | changes)


def sweeps_of(network):
    """A list that grows with every forward of `network`."""
    seen = []
    network.register_forward_pre_hook(lambda *_: seen.append(1))
    return seen


@pytest.mark.parametrize("collect", ["sampled", "all"])
@pytest.mark.parametrize("balanced", [False, True])  # of the criterion: it chooses the images
def test_what_thinet_has_collected_is_not_collected_again(collect, balanced):
    network = chain(nn.Conv2d(8, 6, 3, padding=1))
    alone, shared = evidence(network), evidence(network)
    plan = Plan({"0": [0, 2, 5]})
    expected = repair(collect=collect).fold(alone, plan)[2].weight
    of_thinet(collect=collect, class_balanced=balanced).rank(shared)
    sweeps = sweeps_of(network)
    found = repair(collect=collect).fold(shared, plan)[2].weight
    assert not sweeps
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    "other",
    [{"collect": "all"}, {"num_samples": 11}, {"per_image": 9}, {"rows_per_channel": 90}],
    ids=str,
)
def test_what_thinet_has_collected_otherwise_is_of_no_use(other):
    network = chain(nn.Conv2d(8, 6, 3, padding=1))
    alone, shared = evidence(network), evidence(network)
    plan = Plan({"0": [0, 2, 5]})
    expected = repair(collect="sampled").fold(alone, plan)[2].weight
    of_thinet(**other).rank(shared)
    assert torch.equal(repair(collect="sampled").fold(shared, plan)[2].weight, expected)
    differs = repair(**{"collect": "sampled"} | other).fold(shared, plan)[2].weight
    assert not torch.equal(differs, expected)


def test_other_evidence_knows_nothing_of_what_was_measured():
    network = chain(nn.Conv2d(8, 6, 3, padding=1))
    facts = evidence(network)
    of_thinet().rank(facts)
    assert facts.measured
    assert not replace(facts, images=facts.images[:3]).measured


@pytest.mark.parametrize("change", [{"ridge": 0.0}, {"ridge": 1.0}, {"collect": "some"}], ids=str)
def test_ranges(change):
    with pytest.raises(ConfigError, match=f"{next(iter(change))} must"):
        repair(**change)
