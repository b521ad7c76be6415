"""A copy that still runs the original's weights is noticed, however its forward finds them."""

from __future__ import annotations

import threading
import types
import weakref
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torchvision
from torch import Tensor, nn

import prunebench
from prunebench.channels import Plan, mask, slim, trace
from prunebench.channels.surgery.own_weights import leads_out
from prunebench.errors import PruningError

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SHELF: dict[str, nn.Module] = {}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


class OffTheShelf(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(SHELF["b"](torch.relu(self.a(x)))))


class Parental(Net):
    """Its parts know the whole by a weak reference."""

    def __init__(self) -> None:
        super().__init__()
        self.parent = [weakref.ref(self)]

    def forward(self, x: Tensor) -> Tensor:
        return Net.forward(self.parent[0](), x)


def wrapped() -> nn.Module:
    network = Net()
    network.forward = torch.autocast("cpu", enabled=False)(network.forward)
    return network


def wrapped_part() -> nn.Module:
    """The wrapped forward is one of torch's own."""
    network = Net()
    network.b.forward = torch.autocast("cpu", enabled=False)(network.b.forward)
    return network


def patched() -> nn.Module:
    network = Net()
    network.b.forward = lambda x: nn.functional.conv2d(x, network.b.weight)
    return network


def hooked() -> nn.Module:
    network = Net()
    network.b.register_forward_hook(lambda m, i, o: network.b.forward(i[0]))
    return network


def shelved() -> nn.Module:
    network = OffTheShelf()
    SHELF["b"] = network.b
    return network


def stacked() -> nn.Module:
    """Of the original it takes what no cut changes, and only moves it."""
    network = Net()
    lengths = network.c.bias
    network.b.register_forward_hook(lambda m, i, o: o + torch.stack([lengths, lengths]).sum())
    return network


LEADS_OUT: dict[str, Callable[[], nn.Module]] = {
    "wrapped": wrapped,
    "wrapped part": wrapped_part,
    "patched": patched,
    "hooked": hooked,
    "stacked": stacked,
    "weak": Parental,
    "global": shelved,
}


@pytest.mark.parametrize("name", LEADS_OUT)
def test_a_copy_that_runs_the_original_is_refused(name: str) -> None:
    network = LEADS_OUT[name]().eval()
    cmap = trace(network, IMAGES)
    plan = Plan({"a": [0, 1], "b": [2, 3]})
    for surgery in (slim, mask):
        with pytest.raises(PruningError, match=r"a copy of the network does not run"):
            surgery(network, cmap, plan)
    with pytest.raises(PruningError, match=r"a copy of the network does not run"):
        prunebench.prune(network, IMAGES)


def test_a_copy_that_goes_on_with_what_the_original_found_is_refused() -> None:
    """Its channels are those of the output, so that no shape gives it away."""

    class Finder(Net):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            self.b(torch.relu(self.a(x)))
            return self.c(self.found["b"]), self.found["b"]

    network = Finder().eval()
    network.found = {}
    network.b.register_forward_hook(lambda m, i, o, to=network.found: to.update(b=o))
    network(IMAGES)
    cmap, plan = trace(network, IMAGES), Plan({"a": [0, 1]})
    for surgery in (slim, mask):
        with pytest.raises(PruningError, match="a copy .* not compute what the original does"):
            surgery(network, cmap, plan)


def test_what_cannot_be_copied_is_named() -> None:
    network = Net().eval()
    network.lock = threading.Lock()
    plan = Plan({"a": [0, 1]})
    for surgery in (slim, mask):
        with pytest.raises(PruningError, match="for attribute lock of a Net cannot: cannot pickle"):
            surgery(network, trace(network, IMAGES), plan)


def collects(found: list[int], module: nn.Module, args: object, result: Tensor) -> None:
    found.append(len(result))


def test_functions_that_do_not_lead_back_are_no_hindrance() -> None:
    network = Net().eval()
    sizes: list[int] = []
    network.b.register_forward_hook(partial(collects, sizes))
    network.c.register_forward_hook(lambda m, i, o: o * 2)
    network.a.forward = types.MethodType(nn.Conv2d.forward, network.a)
    assert leads_out(network)
    assert prunebench.prune(network, IMAGES).a.out_channels == 4
    assert sizes == []


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x0_5", "efficientnet_b0"])
def test_ordinary_networks_need_no_second_forward(name: str) -> None:
    assert not leads_out(getattr(torchvision.models, name)(weights=None))
