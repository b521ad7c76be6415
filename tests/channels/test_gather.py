"""GatherChannels: zeros for missing channels, scripting, and where it is not needed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import ShuffleNetV2

from prunebench.channels import GatherChannels, Plan, require_as_planned, slim, trace, verify
from prunebench.errors import PruningError


def test_a_gather_gives_zeros_for_missing_channels() -> None:
    x = torch.tensor([[float("nan"), 2.0, 3.0]])
    assert GatherChannels([-1, 2, 1])(x).tolist() == [[0.0, 3.0, 2.0]]


class Halves(nn.Module):
    """Exchanges two halves of channels, cut in either way."""

    def __init__(self, sizes: int | list[int]) -> None:
        super().__init__()
        self.a, self.b, self.sizes = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1), sizes

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        one, two = x.split(self.sizes, 1) if isinstance(self.sizes, list) else x.chunk(2, 1)
        return self.b(torch.cat([two, one], 1))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:The TorchScript type system")
@pytest.mark.parametrize("sizes", [2, [3, 5]])
def test_a_slim_network_whose_channels_were_parted_can_be_scripted(sizes: int | list[int]) -> None:
    network, images = Halves(sizes).eval(), torch.randn(2, 3, 4, 4)
    cmap = trace(network, images)
    slimmed = slim(network, cmap, Plan({"a": [0, 1, 4, 6, 7]}))
    assert any(isinstance(module, GatherChannels) for module in slimmed.modules())
    with torch.no_grad():
        assert torch.equal(torch.jit.script(slimmed)(images), slimmed(images))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:The TorchScript type system")
def test_a_slim_network_with_gathers_can_be_scripted() -> None:
    network = ShuffleNetV2([4, 2, 2], [24, 16, 32, 64, 128]).eval()
    images = torch.randn(2, 3, 32, 32)
    cmap = trace(network, images)
    slimmed = slim(network, cmap, Plan({g.name: range(0, g.size, 2) for g in cmap.groups}))
    assert any(isinstance(module, GatherChannels) for module in slimmed.modules())
    with torch.no_grad():
        assert torch.equal(torch.jit.script(slimmed)(images), slimmed(images))


Between = Callable[["Parted", Tensor], Tensor]


class Parted(nn.Module):
    """Half of the channels goes another way; either as most code has it or by gathers."""

    def __init__(self, between: Between, *, gathers: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 1)
        self.c, self.between = nn.Conv2d(4, 4, 1), between
        halves = [GatherChannels(range(4)), GatherChannels(range(4, 8))]
        self.halves = nn.ModuleList(halves if gathers else [])

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        one, two = [half(x) for half in self.halves] or x.chunk(2, 1)
        return self.b(torch.cat([self.between(self, two), one], 1))


#: what may be done with no channels at all
FINE: dict[str, Between] = {
    "nothing": lambda net, x: x,
    "activation": lambda net, x: F.relu6(x) - 0.1,
    "gate": lambda net, x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
}
#: what may not
WRONG: dict[str, tuple[Between, str]] = {
    "convolution": (lambda net, x: net.c(x), "leaves c no channel to read"),
    "pool": (lambda net, x: F.max_pool2d(x, 3, 1, 1), "optional 0 dim batch size"),
    "resizing": (
        lambda net, x: F.interpolate(x, size=(6, 6), mode="bilinear"),
        "no channel is left to it",
    ),
}
either = pytest.mark.parametrize("gathers", [True, False], ids=["gathers", "chunk"])


def parted(between: Between, gathers: bool) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Parted(between, gathers=gathers).double().eval(), torch.randn(2, 3, 6, 6).double()


@either
@pytest.mark.parametrize("name", FINE)
def test_a_gather_may_go_as_a_whole(name: str, gathers: bool) -> None:
    network, images = parted(FINE[name], gathers)
    # step by step: a gather loses some channels, then all, and then others lose some
    for left in ([0, 1, 2, 5, 6], [0, 1, 2], [0, 2]):
        cmap, plan = trace(network, images), Plan({"a": left})
        slimmed = slim(network, cmap, plan)
        require_as_planned(network, slimmed, cmap, plan)
        assert verify(network, slimmed, cmap, plan, images) < 1e-12
        network = slimmed
    sizes = [len(m.positions) for m in network.modules() if isinstance(m, GatherChannels)]
    assert 0 in sizes
    assert network.a.out_channels == 2


@either
@pytest.mark.parametrize("name", WRONG)
def test_not_where_something_needs_its_channels(name: str, gathers: bool) -> None:
    between, why = WRONG[name]
    network, images = parted(between, gathers)
    cmap = trace(network, images)
    assert (
        verify(network, slim(network, cmap, half := Plan({"a": [0, 5]})), cmap, half, images)
        < 1e-12
    )
    with pytest.raises(PruningError, match=why):
        slim(network, cmap, Plan({"a": [0, 1]}))
