"""Weights that are used twice, are read as data, or mix positions."""

from __future__ import annotations

import gc
from collections.abc import Callable
from weakref import ref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunebench.channels import Plan, slim, trace

WHOLE = "the weight of b is used as data, too"


class Twice(nn.Module):
    """Convolution `b` between others; `more` uses its weight once more."""

    def __init__(self, more: Callable[[Twice, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 8, 3, padding=1)
        self.c, self.last = nn.Conv2d(16, 10, 3), nn.Conv2d(10, 5, 1)
        self.more = more

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        more = self.more(self, x)
        x = F.relu(self.b(x))
        more = more if more.dim() == 4 else x * more
        return self.last(F.relu(self.c(torch.cat([x, more], 1))))


def flipped(n: Twice, x: Tensor) -> Tensor:
    return F.conv2d(x, n.b.weight.flip(-1), padding=1)


def mean_of_filters(n: Twice, x: Tensor) -> Tensor:
    return n.b.weight.mean((1, 2, 3)).view(-1, 1, 1)


def by_an_unknown_function(n: Twice, x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(n.b.weight)


def by_a_view(n: Twice, x: Tensor) -> Tensor:
    return n.b.weight.data.sum()


USES = [flipped, mean_of_filters, by_an_unknown_function, by_a_view]


@pytest.mark.parametrize("more", USES, ids=lambda more: more.__name__)
def test_a_weight_that_is_read_as_data_stays_whole(more, check_exact) -> None:
    net = Twice(more)
    unknown = more is by_an_unknown_function
    why = "unknown operation linalg_vector_norm" if unknown else WHOLE
    assert trace(net, torch.randn(1, 3, 8, 8)).frozen["b"] == why
    slimmed = check_exact(net, (2, 3, 8, 8), most_kept=0.95)
    assert slimmed.b.weight.shape[:2] == (8, 12)
    assert slimmed.c.weight.shape[0] < 10


def test_a_large_weight_that_is_read_as_data_stays_whole() -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.b, self.last = nn.Linear(300, 300), nn.Linear(300, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.b(x)) + self.b.weight.mean()

    assert trace(Large(), torch.randn(1, 300)).frozen["b"] == WHOLE


def test_a_bias_that_is_read_as_data_follows(check_exact) -> None:
    def shifted(n: Twice, x: Tensor) -> Tensor:
        return n.b.bias.view(-1, 1, 1) * 2

    slimmed = check_exact(Twice(shifted), (2, 3, 8, 8), most_kept=0.8)
    assert len(slimmed.b.bias) < 8


class TiedLinear(nn.Module):
    """An autoencoder whose decoder is the encoder's weight, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.enc, self.mid = nn.Linear(20, 18), nn.Linear(18, 8), nn.Linear(8, 8)
        self.grow, self.last = nn.Linear(18, 30), nn.Linear(30, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(F.relu(self.enc(F.relu(self.first(x)))))
        return self.last(F.relu(self.grow(F.linear(F.relu(x), self.enc.weight.t()))))


def test_a_tied_decoder_keeps_its_encoder_whole(check_exact) -> None:
    cmap = trace(TiedLinear(), torch.randn(1, 20))
    assert cmap.frozen["enc"] == "the weight of enc is used as data, too"
    slimmed = check_exact(TiedLinear(), (2, 20), most_kept=0.9)
    assert slimmed.enc.weight.shape == (8, 18)


class TurnedConv(nn.Module):
    """One weight, read by a convolution and by a transposed one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3), nn.Conv2d(8, 5, 1)
        self.mid = nn.Conv2d(12, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(self.mid(F.relu(self.b(F.relu(self.a(x))))))
        return self.last(F.relu(F.conv_transpose2d(x, self.b.weight)))


@pytest.mark.parametrize("seed", range(3))
def test_one_weight_for_a_convolution_and_a_transposed_one(seed: int, check_exact) -> None:
    torch.manual_seed(seed)
    slimmed = check_exact(TurnedConv(), (2, 3, 10, 10), seed=seed, most_kept=0.7)
    assert slimmed.b.weight.size(0) < 12 and slimmed.b.weight.size(1) < 8


class Mixer(nn.Module):
    """Linear layers over positions, and over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.p1, self.p2 = nn.Conv2d(3, 12, 4, 4), nn.Linear(16, 24), nn.Linear(24, 16)
        self.c1, self.c2, self.last = nn.Linear(12, 30), nn.Linear(30, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).flatten(2)
        x = x + self.p2(F.gelu(self.p1(x)))
        x = x.transpose(1, 2)
        return self.last((x + self.c2(F.gelu(self.c1(x)))).mean(1))


def test_what_mixes_positions_costs_less_with_fewer_channels(check_exact) -> None:
    """The check compares planned multiply-adds with those of the slim network."""
    check_exact(Mixer(), (2, 3, 16, 16), most_kept=0.9)
    cmap = trace(Mixer(), torch.randn(1, 3, 16, 16))
    halved = cmap.macs(Plan({})) - cmap.macs(Plan({"a": range(6)}))
    assert halved == 6 * (3 * 16 * 16 + 2 * 16 * 24 + 2 * 16 * 30 + 5)


class SharedHeads(nn.Module):
    """Two convolutions with one weight, which only the first is named by."""

    def __init__(self, *, frozen: bool) -> None:
        super().__init__()
        self.a, self.c = nn.Conv2d(3, 6, 1), nn.ModuleList(nn.Conv2d(6, 4, 1) for _ in range(2))
        self.c[1].weight = self.c[0].weight
        self.last, self.frozen = nn.Conv2d(8, 5, 1), frozen

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([c(F.relu(self.a(x))) for c in self.c], 1)
        return x if self.frozen else self.last(x)


def test_reasons_name_who_shares_a_weight() -> None:
    image = torch.randn(1, 3, 4, 4)
    free = trace(SharedHeads(frozen=False), image)
    assert free.frozen == {"last": "the output of the network"}
    assert slim(SharedHeads(frozen=False), free, Plan({"c.0": [1]})).c[1].weight.size(0) == 1
    held = trace(SharedHeads(frozen=True), image).frozen
    assert held["c.1"] == "it shares the weight of c.0"


def test_reasons_name_functions_not_addresses() -> None:
    def swapped(n: Twice, x: Tensor) -> Tensor:
        one, two = F.pad(F.relu(n.b(x)), (1, 1, 1, 1)).chunk(2, 1)
        return torch.cat([two, one], 1)[..., 1:-1, 1:-1]

    cmap = trace(Twice(swapped), torch.randn(1, 3, 8, 8))
    assert any("does not follow a cut" in reason for reason in cmap.frozen.values())
    assert not [reason for reason in cmap.frozen.values() if "0x" in reason]


def test_nothing_of_a_traced_network_outlives_it() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding="same"), nn.ReLU(), nn.Conv2d(8, 4, 3))
    cmap = trace(network, torch.zeros(1, 3, 8, 8))
    weight, tape = ref(network[0].weight), ref(cmap.tape)
    del network, cmap
    gc.collect()
    assert weight() is None
    assert tape() is None
