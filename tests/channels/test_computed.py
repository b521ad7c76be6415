"""Weights and biases that a forward computes from parameters: masks, parametrizations, sums."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear
from torch.nn.utils import parametrizations, parametrize, spectral_norm
from torch.nn.utils import prune as masks

from prunebench.channels import Plan, require_as_planned, slim, trace, verify

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Computed(nn.Module):
    """The bias of its first layer is computed from two vectors."""

    def __init__(self, compute: Callable[[Tensor, Tensor], Tensor], *, flat: bool) -> None:
        super().__init__()
        self.first = nn.Linear(3, 8, bias=False) if flat else nn.Conv2d(3, 8, 3, bias=False)
        self.b, self.c = nn.Parameter(torch.randn(8)), nn.Parameter(torch.randn(8))
        self.last = nn.Linear(8, 4) if flat else nn.Conv2d(8, 4, 3)
        self.apply_first, self.compute = linear if flat else conv2d, compute

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean((2, 3)) if self.apply_first is linear else x
        found: Tensor = self.last(
            self.apply_first(x, self.first.weight, self.compute(self.b, self.c))
        )
        return found


def exactly_cut(network: nn.Module, plan: Plan) -> nn.Module:
    """Returns `network` slimmed, which computes what it does masked."""
    network, images = network.double().eval(), X.double()
    cmap = trace(network, images)
    small = slim(network, cmap, plan)
    assert verify(network, small, cmap, plan, images) < 1e-12
    require_as_planned(network, small, cmap, plan)
    return small


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(
    "compute",
    [
        lambda b, c: b.tanh(),
        lambda b, c: b.sigmoid(),  # other than zero where its parameter is
        lambda b, c: b + c,
        lambda b, c: b * c.exp(),
        lambda b, c: b.exp() * c.exp(),
    ],
)
def test_a_computed_bias_is_cut_with_its_layer(compute, flat: bool) -> None:
    small = exactly_cut(Computed(compute, flat=flat), Plan({"first": [1, 2, 6]}))
    assert small.get_parameter("b").shape == (3,)


@pytest.mark.parametrize("compute", [lambda b, c: torch.ones(8), lambda b, c: b.mean().expand(8)])
def test_what_a_bias_is_not_computed_from_channel_by_channel_keeps_them_whole(compute) -> None:
    network = Computed(compute, flat=False)
    assert [group.name for group in trace(network, X).groups] == []


class Tanh(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.tanh()


@pytest.mark.parametrize(
    "put_on",
    [
        lambda layer: masks.l1_unstructured(layer, "bias", 0.5),
        lambda layer: parametrize.register_parametrization(layer, "bias", Tanh()),
    ],
)
def test_biases_under_masks_and_parametrizations_are_cut(put_on) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    put_on(network[0])
    small = exactly_cut(network, Plan({"0": [0, 3, 5]}))
    assert small.get_submodule("0").bias.shape == (3,)


@pytest.mark.parametrize(
    ("put_on", "way_out"),
    [
        (lambda layer: masks.l1_unstructured(layer, "weight", 0.5), "prune.remove makes its mask"),
        (parametrizations.spectral_norm, "parametrize.remove_parametrizations makes it"),
        (spectral_norm, "remove_spectral_norm makes it"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*spectral_norm. is deprecated:FutureWarning")
def test_a_weight_that_is_computed_stays_whole_and_the_way_out_is_named(put_on, way_out) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 3))
    put_on(network[1])
    assert way_out in trace(network, X).frozen["1"]


def test_a_mask_on_a_norm_keeps_its_channels_whole() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3))
    masks.l1_unstructured(network[1], "weight", 0.5)
    assert trace(network, X).frozen["0"] == "its channels cannot be told apart"
