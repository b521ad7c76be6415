"""Train and eval modes are restored, whatever happens while they are changed."""

from __future__ import annotations

import pytest
from torch import nn

from prunebench.channels import in_mode, match_modes


@pytest.fixture
def network() -> nn.Module:
    """A network in training, one batch norm of which is frozen."""
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4)))
    net[2][0].eval()
    return net


def modes(network: nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in network.named_modules()}


FROZEN = {"": True, "0": True, "1": True, "2": True, "2.0": False}


@pytest.mark.parametrize("training", [False, True])
def test_every_module_is_in_the_mode_and_gets_its_own_back(network, training: bool) -> None:
    with in_mode(network, training=training):
        assert set(modes(network).values()) == {training}
    assert modes(network) == FROZEN


def test_an_exception_changes_no_mode(network) -> None:
    with pytest.raises(ValueError, match="stop"), in_mode(network):
        raise ValueError("stop")
    assert modes(network) == FROZEN


def test_it_sets_flags_and_calls_nothing_of_the_network() -> None:
    class Careful(nn.Module):
        def train(self, mode: bool = True) -> nn.Module:
            raise AssertionError("somebody called train")

    network = Careful()
    with in_mode(network):
        assert not network.training
    assert network.training


def test_namesakes_match_and_newcomers_follow_the_whole(network) -> None:
    other = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4)))
    other.add_module("gather_0", nn.Identity())
    match_modes(other.eval(), network)
    assert modes(other) == {**FROZEN, "gather_0": True}
