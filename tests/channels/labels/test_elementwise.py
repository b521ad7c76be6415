"""Sums and products of operands whose labels differ from position to position."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunebench.channels import add_position_bias, capture, trace


class Gated(nn.Module):
    """A map with a number of its own at every position, then one gate per channel."""

    def __init__(self, gate: Callable[[Gated, Tensor], Tensor], *, embedded: bool = True) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 8, 3), head(8)
        self.place = nn.Parameter(torch.randn(1, 12, 8, 8))
        self.down, self.up = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)
        self.scale = nn.Parameter(torch.rand(12, 1, 1))
        self.gate, self.embedded = gate, embedded

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x = self.place + x if self.embedded else x
        return self.last(self.b(self.gate(self, x)))


def head(channels: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


def squeeze_excite(n: Gated, x: Tensor) -> Tensor:
    return x * torch.sigmoid(n.up(F.relu(n.down(F.adaptive_avg_pool2d(x, 1)))))


def gate_first(n: Gated, x: Tensor) -> Tensor:
    return torch.sigmoid(n.up(F.relu(n.down(x.mean((2, 3), keepdim=True))))) * x


def own_scale(n: Gated, x: Tensor) -> Tensor:
    return n.scale * F.gelu(x)


def scaled_embedding(n: Gated, x: Tensor) -> Tensor:
    return x + n.scale * n.place


def normed_by_statistics(n: Gated, x: Tensor) -> Tensor:
    return (x - x.mean((2, 3), keepdim=True)) / (x.std((2, 3), keepdim=True) + 0.1)


GATES = [squeeze_excite, gate_first, own_scale, scaled_embedding, normed_by_statistics]


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.__name__)
def test_a_gate_per_channel_behind_a_position_embedding(gate, check_exact) -> None:
    torch.manual_seed(0)
    check_exact(Gated(gate), (2, 3, 8, 8), most_kept=0.9)


def test_a_gate_behind_our_own_position_bias(check_exact) -> None:
    net = Gated(squeeze_excite, embedded=False)
    add_position_bias(net.a, torch.randn(12, 8, 8))
    check_exact(net, (2, 3, 8, 8), most_kept=0.9)


class Tokens(nn.Module):
    """Patches behind a class token, positions of their own, and one scale per channel."""

    def __init__(self, *, place_first: bool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, stride=4)
        self.first = nn.Parameter(torch.randn(1, 1, 12))
        self.place = nn.Parameter(torch.randn(1, 5, 12))
        self.scale = nn.Parameter(torch.rand(12))
        self.up, self.down = nn.Linear(12, 20), nn.Linear(20, 12)
        self.last, self.place_first = nn.Linear(12, 5), place_first

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1)
        x = self.place + x if self.place_first else x + self.place
        x = x + self.scale * self.down(F.gelu(self.up(x * self.scale)))
        return self.last(x[:, 0])


@pytest.mark.parametrize("place_first", [True, False])
def test_a_class_token_has_channels_like_the_others(place_first: bool, check_exact) -> None:
    torch.manual_seed(0)
    check_exact(Tokens(place_first=place_first), (2, 3, 8, 8), most_kept=0.9)


def test_one_value_for_all_channels_stays_whole() -> None:
    def spatial(n: Gated, x: Tensor) -> Tensor:
        return x * torch.sigmoid(n.one(x))

    net = Gated(spatial)
    net.one = nn.Conv2d(12, 1, 1)
    cmap = trace(net, torch.randn(1, 3, 8, 8))
    assert cmap.frozen["one"] == "broadcast over channels"
    assert [(g.name, g.size) for g in cmap.groups] == [("a", 12), ("b", 8)]


class LargeMap(nn.Module):
    """A position embedding of more elements than are labelled one by one."""

    def __init__(self, use: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(1, 12, 1), nn.Conv2d(12, 8, 1), head(8)
        self.place, self.use = nn.Parameter(torch.randn(12, 80, 80)), use

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.b(F.relu(self.use(self.a(x), self.place)))))


USES = [torch.add, lambda x, place: place - x, lambda x, place: x * place + place]


@pytest.mark.parametrize("use", USES, ids=["sum", "difference", "both"])
def test_large_position_embeddings_are_cut(use, check_exact) -> None:
    torch.manual_seed(0)
    slimmed = check_exact(LargeMap(use), (2, 1, 80, 80), most_kept=0.8)
    assert slimmed.place.size(0) == slimmed.a.out_channels < 12


def test_a_large_embedding_that_is_used_otherwise_as_well_stays_whole() -> None:
    cmap = trace(LargeMap(lambda x, p: (x + p) * p.roll(1, 0)), torch.randn(1, 1, 80, 80))
    assert "a" in cmap.frozen


class LargeTokens(nn.Module):
    """A vision transformer's stem: a class token, and positions of more than 65,536 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 160, 1)
        self.first = nn.Parameter(torch.randn(1, 1, 160))
        self.place = nn.Parameter(torch.randn(1, 442, 160))
        self.last = nn.Linear(160, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1)
        return self.last(F.gelu(x + self.place).mean(1))


def test_large_positions_of_tokens_are_cut(check_exact) -> None:
    torch.manual_seed(0)
    slimmed = check_exact(LargeTokens(), (2, 3, 21, 21), most_kept=0.8)
    assert slimmed.place.shape == (1, 442, slimmed.patches.out_channels)


class ByName(nn.Module):
    """Functions and layers that are given their tensors by name."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 12, 3), nn.Conv2d(3, 12, 3), nn.Conv2d(24, 8, 3)
        self.slope, self.last = nn.Parameter(torch.rand(8)), head(8)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(input=x), self.b(input=x)
        larger = torch.max(a, other=b)
        ratio = torch.div(input=torch.relu(input=a), other=torch.exp(input=b))
        spread = torch.var(input=larger, dim=3, keepdim=True)
        pooled = F.avg_pool2d(input=larger.add(ratio), kernel_size=2)
        x = torch.cat(tensors=[pooled, pooled * spread.mean(dim=2, keepdim=True)], dim=1)
        x = F.conv2d(weight=self.c.weight, bias=self.c.bias, input=torch.clone(input=x))
        return self.last(F.prelu(input=x, weight=self.slope))


def test_tensors_given_by_name(check_exact) -> None:
    torch.manual_seed(0)
    net = ByName()
    check_exact(net, (2, 3, 10, 10), most_kept=0.9)
    cmap = trace(net, torch.randn(1, 3, 10, 10, dtype=torch.float64))
    images = torch.randn(2, 3, 10, 10, dtype=torch.float64)
    for group in cmap.groups:
        assert capture(net, cmap, images, [group], "consumer")[group.name].any()


def test_a_reduction_keeps_what_its_result_keeps(check_exact) -> None:
    """The third argument of `var` is not `keepdim`."""
    net = Gated(lambda n, x: x * x.flatten(2).var(2, True)[..., None, None])
    check_exact(net, (2, 3, 8, 8), most_kept=0.9)
