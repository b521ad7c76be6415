"""Batch-norm recalibration, compared with statistics computed layer by layer."""

import pytest
import torch
from torch import nn

from prunebench.channels import Plan
from prunebench.contracts import Evidence
from prunebench.errors import ConfigError
from prunebench.repairs.bn_recalibration import BnRecalibration
from prunebench.repairs.none import NoRepair


def build():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, momentum=0.3), nn.ReLU(), nn.Dropout(0.5),
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
    )  # fmt: skip
    for norm in (network[1], network[5]):
        norm.running_mean.normal_()
        norm.running_var.uniform_(1, 5)
    return network.eval()


def evidence(network, count):
    images = torch.randn(count, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    return Evidence(network, None, (), images, torch.zeros(count, dtype=torch.int64), 0)


def settled(network, facts, **settings):
    BnRecalibration(**settings).settle(network, facts, Plan({}))
    return network


def test_statistics_are_the_plain_average_over_equal_batches():
    network, facts = build(), evidence(None, 20)
    settled(network, facts, images=18, batch=8)
    parts = [facts.images[0:6], facts.images[6:12], facts.images[12:18]]
    for number in (1, 5):
        norm = network[number]
        inputs = []
        for part in parts:
            seen = part
            for layer in network[:number]:
                if isinstance(layer, nn.BatchNorm2d):  # batch statistics, as while re-estimating
                    mean, var = seen.mean((0, 2, 3)), seen.var((0, 2, 3), correction=0)
                    seen = (seen - mean[:, None, None]) / (var + layer.eps).sqrt()[:, None, None]
                else:
                    seen = layer(seen)
            inputs.append(seen)
        means = torch.stack([seen.mean((0, 2, 3)) for seen in inputs]).mean(0)
        variances = torch.stack([seen.var((0, 2, 3)) for seen in inputs]).mean(0)
        torch.testing.assert_close(norm.running_mean, means, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(norm.running_var, variances, atol=1e-6, rtol=1e-5)


class Shown(list):
    """Images whose augmented form is their own noise."""

    def augmented(self, seed):
        return torch.randn(len(self), 2, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_images_of_a_data_set_are_shown_as_in_training():
    labels = torch.zeros(8, dtype=torch.int64)
    found = settled(build(), Evidence(None, None, (), Shown([0] * 8), labels, 5), images=8, batch=4)
    images = Shown([0] * 8).augmented(5)
    wanted = settled(build(), Evidence(None, None, (), images, labels, 5), images=8, batch=4)
    pairs = zip(found.buffers(), wanted.buffers(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_weights_modes_and_momenta_stay():
    network = build()
    network[4].train()
    weights = {name: value.clone() for name, value in network.named_parameters()}
    settled(network, evidence(None, 8), images=8, batch=4)
    assert all(torch.equal(value, weights[name]) for name, value in network.named_parameters())
    assert [layer.training for layer in network] == [False] * 4 + [True] + [False] * 2
    assert (network[1].momentum, network[5].momentum) == (0.3, 0.1)
    assert all(value.grad is None for value in network.parameters())


def test_right_statistics_are_a_fixed_point():
    network, facts = build(), evidence(None, 16)
    settled(network, facts, images=16, batch=16)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    settled(network, facts, images=16, batch=16)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_network_without_batch_norms_is_left_alone():
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    settled(network, evidence(None, 8), images=8, batch=4)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_none_changes_nothing():
    network, facts = build(), evidence(None, 4)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    repair = NoRepair()
    assert repair.identity
    assert repair.images_needed == 0
    repair.settle(network, facts, Plan({}))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_ranges():
    assert BnRecalibration(images=64, batch=8).images_needed == 64
    with pytest.raises(ConfigError, match="images must be at least 2, got 1"):
        BnRecalibration(images=1, batch=8)
    with pytest.raises(ConfigError, match="batch must be at least 2, got 0"):
        BnRecalibration(images=64, batch=0)
