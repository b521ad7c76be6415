"""Weight norm: directions and lengths are cut so that the remaining weights stay the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from prunebench.analysis.filters import filters
from prunebench.channels import Plan, mask, slim, trace, verify
from prunebench.channels.surgery import slim as surgery
from prunebench.channels.surgery.verify import agreement

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")

#: how it is put on a layer, and what it calls lengths and direction
KINDS: dict[str, tuple[Callable[..., nn.Module], str, str]] = {
    "hook": (nn.utils.weight_norm, "weight_g", "weight_v"),
    "parametrization": (
        parametrizations.weight_norm,
        "parametrizations.weight.original0",
        "parametrizations.weight.original1",
    ),
}
kinds = pytest.mark.parametrize("kind", KINDS)
IMAGE = (2, 3, 8, 8)


class Normed(nn.Module):
    """Every kind of layer under weight norm, its lengths other than those of its direction."""

    def __init__(self, kind: str, dim: int | None = 0, more: Any = None) -> None:
        super().__init__()
        norm, self.lengths, self.direction = KINDS[kind]
        self.a = norm(nn.Conv2d(3, 8, 3, padding=1), dim=dim)
        self.deep = norm(nn.Conv2d(8, 8, 3, padding=1, groups=8), dim=dim)
        self.up = norm(nn.ConvTranspose2d(8, 12, 3), dim=dim)
        self.last = norm(nn.Linear(12, 5), dim=dim)
        self.more = more
        with torch.no_grad():
            for layer in (self.a, self.deep, self.up, self.last):
                lengths = layer.get_parameter(self.lengths)
                lengths.mul_(torch.rand_like(lengths) + 1)
            self(torch.randn(IMAGE))  # hooks compute the weights

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(self.deep(F.relu(self.a(x))))
        x = self.more(self, x) if self.more is not None else x
        return self.last(F.relu(self.up(x)).mean((2, 3)))


@kinds
@pytest.mark.parametrize("dim", [0, 1, -1], ids=["rows", "columns", "one"])
def test_weights_stay_what_they_were(kind: str, dim: int, check_exact) -> None:
    torch.manual_seed(0)
    net = Normed(kind, None if dim == -1 else dim)
    slimmed = check_exact(net, IMAGE, most_kept=0.8)
    rows = [int((net.a.weight - row).abs().flatten(1).sum(1).argmin()) for row in slimmed.a.weight]
    assert len(rows) == slimmed.a.out_channels == slimmed.deep.groups < 8
    assert torch.allclose(slimmed.a.weight, net.a.weight[rows], rtol=1e-12)
    assert torch.allclose(slimmed.deep.weight, net.deep.weight[rows], rtol=1e-12)
    named = dict(net.named_parameters())
    assert [(name, p.dim()) for name, p in slimmed.named_parameters()] == [
        (name, p.dim()) for name, p in named.items()
    ]
    # directions are cut, not exchanged for the weights: training goes on as it did
    direction = dict(slimmed.named_parameters())[f"a.{net.direction}"]
    assert torch.equal(direction, named[f"a.{net.direction}"][rows])


@kinds
def test_lengths_that_are_only_cut_are_found_out(kind: str, monkeypatch) -> None:
    torch.manual_seed(0)
    net, images = Normed(kind).double().eval(), torch.randn(IMAGE, dtype=torch.float64)
    cmap, plan = trace(net, images), Plan({"a": [0, 3, 4], "up": [2, 7]})
    assert verify(net, slim(net, cmap, plan), cmap, plan, images) < 1e-12
    monkeypatch.setattr(surgery, "_keep_lengths", lambda *_: None)
    assert verify(net, slim(net, cmap, plan), cmap, plan, images) > 1e-3


@kinds
def test_what_is_cut_is_zero_in_the_masked_network(kind: str) -> None:
    net = Normed(kind).eval()  # its transposed convolution has a length for each input
    masked = mask(net, trace(net, torch.randn(IMAGE)), Plan({"a": [1, 2]}))
    masked(torch.randn(IMAGE))
    gone = [0, 3, 4, 5, 6, 7]
    assert not masked.a.weight[gone].any() and not masked.deep.weight[gone].any()
    assert torch.allclose(masked.a.weight[[1, 2]], net.a.weight[[1, 2]])


@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lengths_are_rounded_in_the_type_of_the_network(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    net, images = Normed(kind).eval().to(dtype), torch.randn(IMAGE).to(dtype)
    cmap, plan = trace(net, images), Plan({"a": [0, 3, 4], "up": [2, 7]})
    found = agreement(net, slim(net, cmap, plan), cmap, plan, images)
    assert found.exact
    assert found.dtype == str(dtype).removeprefix("torch.")


def lengths_too(net: Normed, x: Tensor) -> Tensor:
    return x * net.up.get_parameter(net.lengths).mean()


def direction_too(net: Normed, x: Tensor) -> Tensor:
    return x + net.up.get_parameter(net.direction).mean()


def weight_too(net: Normed, x: Tensor) -> Tensor:
    net.up(x)  # the hook has computed it
    return x + net.up.weight.abs().mean()


def written(net: Normed, x: Tensor) -> Tensor:
    net.up.get_parameter(net.lengths).data.clamp_(0, 9)
    return x


@kinds
@pytest.mark.parametrize("dim", [0, None], ids=["rows", "one"])
@pytest.mark.parametrize("more", [lengths_too, direction_too, weight_too, written])
def test_a_weight_norm_whose_parts_are_read_as_data_stays_whole(kind, dim, more) -> None:
    cmap = trace(Normed(kind, dim, more), torch.randn(IMAGE))
    assert "is used as data, too" in cmap.frozen["up"]
    assert not cmap.groups  # nor its inputs, which count in its norm


@kinds
def test_criteria_see_the_weight(kind: str) -> None:
    net = Normed(kind)
    group = trace(net, torch.randn(IMAGE)).group("a")
    assert torch.equal(filters(net, group), net.a.weight.detach().flatten(1).double())


@kinds
def test_a_slim_network_trains(kind: str) -> None:
    net, images = Normed(kind).eval(), torch.randn(IMAGE)
    slimmed = slim(net, trace(net, images), Plan({"a": [0, 3, 4]})).train()
    slimmed(images).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in slimmed.parameters())
