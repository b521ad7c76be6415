"""Biases per position: where they are added, and how a state dict brings them back."""

from copy import deepcopy

import torch
from torch import nn

from prunebench.channels import add_position_bias, add_position_biases_as_in, trace


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.AdaptiveAvgPool2d(1)
    ).eval()


def test_biases_add_up_place_by_place():
    net, x, bias = network(), torch.randn(2, 3, 6, 6), torch.randn(4, 6, 6)
    expected = net[0](x) + 3 * bias
    add_position_bias(net[0], bias)
    add_position_bias(net[0], 2 * bias)
    torch.testing.assert_close(net[0](x), expected)
    assert sum(p.numel() for p in net[0].parameters()) == 3 * 4 * 9 + 4 + 4 * 36


def test_a_state_dict_says_where_they_were():
    net, x = network(), torch.randn(2, 3, 6, 6)
    bare = deepcopy(net)
    add_position_bias(net[0], torch.randn(4, 6, 6))
    add_position_biases_as_in(bare, net.state_dict())
    bare.load_state_dict(net.state_dict())
    assert torch.equal(bare(x), net(x))
    add_position_biases_as_in(bare, net.state_dict())  # as when a run is taken up again
    assert torch.equal(bare(x), net(x))


def test_a_pool_right_behind_keeps_channels_apart():
    net = nn.Sequential(network(), nn.Flatten(), nn.Linear(2, 3))
    before = [group.name for group in trace(net, torch.randn(1, 3, 6, 6)).groups]
    add_position_bias(net[0][2], torch.randn(2, 4, 4))
    assert [group.name for group in trace(net, torch.randn(1, 3, 6, 6)).groups] == before
    assert "0.2" in before
