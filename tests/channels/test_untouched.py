"""Tracing a forward leaves nothing behind in the network, whatever its code stores."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import prunebench
from prunebench.channels import Plan, mask, slim, trace, verify
from prunebench.errors import PruningError

IMAGE = (2, 3, 8, 8)
HOOKED: nn.Module


def picture(value: Any, seen: dict[int, Any] | None = None) -> Any:
    """Returns everything that `value` holds: tensors by identity and number, the rest by value."""
    seen = {} if seen is None else seen
    if isinstance(value, Tensor):
        return id(value), value.device.type, value.detach().clone().tolist(), vars(value).keys()
    if id(value) in seen:
        return "seen"
    if isinstance(value, dict):
        seen[id(value)] = value
        return [(key, picture(held, seen)) for key, held in value.items()]
    if isinstance(value, (list, tuple)):
        seen[id(value)] = value
        return [picture(held, seen) for held in value]
    if hasattr(value, "__dict__") and not isinstance(value, type) and not callable(value):
        seen[id(value)] = value
        return picture(vars(value), seen)
    if isinstance(value, nn.Module):
        seen[id(value)] = value
        return picture(vars(value), seen)
    return value


class Plain(nn.Module):
    """Two convolutions between which subclasses keep something."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 2, 1)

    def keep(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(self.keep(torch.relu(self.a(x))))))


class Grid(Plain):
    """Caches a grid in a list, as detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.grid = [torch.empty(0)]

    def keep(self, x: Tensor) -> Tensor:
        if self.grid[0].shape != x.shape[2:]:
            self.grid[0] = torch.ones(x.shape[2:], device=x.device, dtype=x.dtype)
        return x * self.grid[0]


class Attributes(Plain):
    """Counts, and exchanges an attribute, a buffer and an object's field."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.last, self.inner = 0, None, type("Cache", (), {})()
        self.inner.last = self.inner
        self.register_buffer("mean", torch.zeros(()))

    def keep(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last, self.inner.last = x, x
        self.mean = x.mean()
        self.names = {"new"}
        return x


class Written(Plain):
    """Writes to an attribute in place, and to a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.constant = torch.ones(8, 8)
        self.register_buffer("steps", torch.zeros(()))

    def keep(self, x: Tensor) -> Tensor:
        self.steps.add_(1)
        self.constant.mul_(1.0)
        return x * self.constant


def hooked() -> nn.Module:
    """A network whose hooks fill a dict of their own and one that is an attribute."""
    network = Plain()
    network.found = {}
    found: dict[str, Tensor] = {}
    network.b.register_forward_hook(lambda m, i, o: found.__setitem__("b", o))
    network.a.register_forward_hook(lambda m, i, o, to=network.found: to.__setitem__("a", o))
    network.elsewhere = found
    return network


def global_hook() -> nn.Module:
    """A network whose hook finds it by a global name."""
    global HOOKED
    network = HOOKED = Plain()
    network.found = {}
    network.b.register_forward_hook(lambda m, i, o: HOOKED.found.update(b=o))
    return network


def normed() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 1), spectral_norm(nn.Conv2d(6, 6, 1)), nn.ReLU(), nn.Conv2d(6, 2, 1)
    )


class Drawing(Plain):
    """Draws random numbers where it runs."""

    def keep(self, x: Tensor) -> Tensor:
        return x * (1 + random.random() + np.random.rand() + torch.rand(1))  # noqa: NPY002


KEEPERS: dict[str, Callable[[], nn.Module]] = {
    "a list": Grid,
    "attributes": Attributes,
    "in place": Written,
    "hooks": hooked,
    "a global network": global_hook,
    "spectral norm": normed,
    "random numbers": Drawing,
}


@pytest.mark.parametrize("name", KEEPERS)
def test_the_whole_model_is_as_it_was(name: str) -> None:
    torch.manual_seed(0)
    network, images = KEEPERS[name]().eval(), torch.randn(IMAGE)
    before, draws = picture(network), torch.get_rng_state()
    others = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    cmap = trace(network, images)
    assert picture(network) == before
    plan = Plan({group.name: range(0, group.size, 2) for group in cmap.groups})
    slim(network, cmap, plan)
    mask(network, cmap, plan)
    prunebench.prune(network, images, uniform=0.5, scope="all") if cmap.groups else None
    assert picture(network) == before
    assert torch.equal(torch.get_rng_state(), draws)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == others  # noqa: NPY002
    assert network(images).shape == (2, 2, 8, 8)  # and runs on data


def test_the_slim_network_is_left_without_empty_tensors() -> None:
    network, images = Grid().eval(), torch.randn(IMAGE)
    cmap = trace(network, images)
    plan = Plan({group.name: range(0, group.size, 2) for group in cmap.groups})
    slimmed = slim(network, cmap, plan)
    assert verify(network, slimmed, cmap, plan, images) < 1e-6
    assert slimmed.grid[0].numel() == 0


def test_what_a_forward_with_gradients_left_behind_is_copied() -> None:
    network, images = Attributes().eval(), torch.randn(IMAGE)
    network(images)
    assert network.last.grad_fn is not None
    cmap = trace(network, images)
    slimmed = slim(network, cmap, Plan({"b": [0, 1]}))
    assert slimmed.last.grad_fn is None
    assert torch.equal(slimmed.last, network.last)


def test_a_weight_that_the_forward_writes_to_stays_whole() -> None:
    class Clamped(Plain):
        def keep(self, x: Tensor) -> Tensor:
            self.b.weight.data.clamp_(-1, 1)
            return x

    cmap = trace(Clamped().eval(), torch.randn(IMAGE))
    assert cmap.frozen["b"] == "the weight of b is used as data, too"
    assert not any(group.name in ("a", "b") for group in cmap.groups)  # neither rows nor columns


def test_a_weight_whose_data_the_forward_exchanges_is_refused() -> None:
    class Masked(Plain):
        def keep(self, x: Tensor) -> Tensor:
            self.b.weight.data = self.b.weight.data * 2
            return x

    network = Masked().eval()
    before = picture(network)
    with pytest.raises(PruningError, match="the network replaces the data of b.weight"):
        trace(network, torch.randn(IMAGE))
    assert picture(network) == before


def test_a_buffer_that_captured_code_changes_in_place_is_not_ours() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
            self.register_buffer("share", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls.add_(1)
            self.share.add_(0.5)
            return torch.cat([x[:, 4:], x[:, :4]], 1)  # which a cut breaks, so it is captured

    network = nn.Sequential(nn.Conv2d(3, 8, 1), Counting(), nn.Conv2d(8, 4, 1)).eval()
    before = picture(network)
    cmap = trace(network, torch.randn(IMAGE))
    assert "conv2d runs where add_ did" in cmap.frozen["0"]
    assert picture(network) == before
