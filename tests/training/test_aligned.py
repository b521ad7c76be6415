"""Zeros after a layer's channels change nothing but the time of a step."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import prunebench
from prunebench.models import ModelSpec
from prunebench.options import option
from prunebench.schedules.soft.zeros import ZerosStay
from prunebench.training.aligned import Aligned, align
from prunebench.training.forward import Forward
from prunebench.training.loop import train
from tests.training.test_loop import data, outcome, stage
from tests.training.test_recorded import LONG, AsItComes, Tapes


def slimmed(name: str, scope: str = "inner", **options: Any) -> nn.Module:
    """A network whose widths are no multiples of 8."""
    torch.manual_seed(0)
    net = option("model", name, ModelSpec, **options).build((3, 32, 32), 10)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return prunebench.prune(net, torch.zeros(1, 3, 32, 32), macs=0.6, scope=scope)


#: images that every network takes
LARGE = torch.randn(4, 3, 32, 32)


class Mixed(nn.Module):
    """Layers with and without bias and norm, pooled, added, and read by linear ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)
        self.left, self.right = nn.Conv2d(5, 11, 1), nn.Conv2d(5, 11, 3, padding=1, bias=False)
        self.bare, self.still = nn.BatchNorm2d(11, affine=False), nn.BatchNorm2d(11)
        self.eight, self.inner, self.last = nn.Conv2d(11, 8, 3), nn.Linear(8, 7), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.gelu(self.norm(self.first(x)))
        x = torch.sigmoid(self.bare(self.left(x)) + self.still(self.right(x)))
        x = self.eight(functional.max_pool2d(x, 2)).mean((2, 3))
        return self.last(self.inner(x).relu())


@pytest.mark.parametrize(
    "build",
    [lambda: slimmed("vgg16", width=0.25), lambda: slimmed("resnet20"), Mixed],
    ids=["vgg16", "resnet20", "mixed"],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_steps_are_the_same(build: Any, layout: torch.memory_format) -> None:
    calls = same_steps(build, torch.randn(6, 3, 32, 32).contiguous(memory_format=layout))
    assert [len(call.statistics) > 1 for call in calls] == [False, True]
    assert [call.channels for call in calls] == [None, 8]


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["inner", "all"])
@pytest.mark.parametrize(
    "name",
    [
        "densenet40", "ghostnet", "googlenet", "mobilenet_v1", "mobilenet_v2", "resnet56",
        "resnet56_foad", "resnet164", "shufflenet_v1", "shufflenet_v2", "vgg16_gap", "vgg19",
    ],
)  # fmt: skip
def test_steps_of_all_networks_are_the_same(name: str, scope: str) -> None:
    # through 164 layers, a millionth of the images makes per cents of a gradient, as rounding does
    fewer = {"depth": 29} if name == "resnet164" else {}
    images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    calls = same_steps(lambda: slimmed(name, scope, **fewer), images, rounding=1e-2)
    assert calls[1].channels == 8


def same_steps(build: Any, images: Tensor, rounding: float = 1e-4) -> list[Forward]:
    """Returns the calls of a network as it is and aligned, which learn the same in three steps."""
    calls = []
    found = []
    for wide in (False, True):
        torch.manual_seed(1)
        last = images.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        net = build().to(memory_format=layout).train()
        calls.append(call := Forward(net, torch.float32, align(net, images) if wide else None))
        for _ in range(3):  # the first is the network's own
            logits = call(images)
            logits.square().mean().backward()  # gradients add up
        grads = {f"{name}.grad": p.grad for name, p in net.named_parameters()}
        found.append({"logits": logits.detach()} | net.state_dict() | grads)
    plain, aligned = found
    assert plain.keys() == aligned.keys()
    for name, value in plain.items():
        ours = aligned[name]
        assert ours.shape == value.shape and ours.stride() == value.stride(), name
        size = max(1e-3, float(value.abs().max()))  # a bias before a norm learns nothing
        assert torch.allclose(ours.float(), value.float(), rtol=1e-3, atol=rounding * size), name
    return calls


def test_every_odd_layer_computes_in_eights() -> None:
    net = slimmed("vgg16", width=0.25)
    shapes = align(net, torch.randn(4, 3, 32, 32)).shapes
    state = net.state_dict()
    assert {name for name in shapes if name.endswith("running_var")}
    for name, value in state.items():
        if value.dim() == 4:
            out, into, *kernel = value.shape
            wide = (-(-out // 8) * 8, -(-into // 8) * 8, *kernel)
            assert shapes.get(name, value.shape) == wide
    assert shapes.keys() <= state.keys()


def test_zeros_stay_zeros_while_weights_move() -> None:
    net = slimmed("vgg16", width=0.25).train()
    call = Forward(net, torch.float32, align(net, torch.randn(4, 3, 32, 32)))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        call(torch.randn(8, 3, 32, 32)).square().mean().backward()
        optimizer.step()
    seen = 0
    for own, tensor in zip(call.stand_ins, call.exchanged.values(), strict=True):
        if own.wide is not None:
            margin = own.wide.clone()
            margin[tuple(slice(n) for n in tensor.shape)] = 0
            assert not margin.any()
            seen += own.wide.numel() > tensor.numel()
    assert seen > 20


class Shuffled(nn.Module):
    """Goes wrong without an error where channels are more."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        n, channels, h, w = x.shape
        x = x.view(n, 2, channels // 2, h, w).transpose(1, 2).reshape(n, channels, h, w)
        return self.last(x).mean((2, 3))[:, :4]


class Flat(nn.Sequential):
    """Reads pixels of channels one by one."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(5 * 30 * 30, 4))


class Tied(nn.Module):
    """Two names for a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.one, self.two = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 5, 1), nn.Conv2d(5, 5, 1)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(self.first(x))).mean((2, 3))


class Counting(nn.Module):
    """Divides by the number of channels while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x / x.shape[1] if self.training else x).mean((2, 3))


class Apart(nn.Module):
    """Has in training what it has not in eval mode, which goes wrong there alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.side, self.last = nn.Conv2d(3, 5, 1), nn.PReLU(5), nn.Conv2d(5, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(self.side(x) if self.training else x.relu()).mean((2, 3))


class Between(nn.Module):
    """Does something between two layers."""

    def __init__(self, between: Callable[[Any, Tensor], Tensor], *, last: float = 1) -> None:
        super().__init__()
        self.first, self.last, self.between = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 8, 1), between
        self.scale, self.elsewhere = nn.Parameter(torch.zeros(())), [self.last.weight]
        self.register_buffer("seen", torch.zeros(()))
        nn.init.constant_(self.first.bias, 9)
        self.last.weight.data.mul_(last)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self, self.first(x))).mean((2, 3))

    def centred(self, x: Tensor) -> Tensor:
        return x - x.mean(1, keepdim=True)

    def added(self, x: Tensor) -> Tensor:
        return x + self.scale * self.centred(x)

    def slowed(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            x.register_hook(lambda grad: grad / grad.shape[1])
        return x

    def counted(self, x: Tensor) -> Tensor:
        self.seen.lerp_(x.detach().mean(), 0.1)
        return x

    def read(self, x: Tensor) -> Tensor:
        return x + functional.conv2d(x, self.elsewhere[0]).mean()


def gated(net: Any, x: Tensor) -> Tensor:
    """Has one channel in 512 more that is read."""
    return x * torch.sigmoid(x.mean(1, keepdim=True))


def wider() -> Between:
    net = Between(gated)
    net.first, net.last = nn.Conv2d(3, 511, 1), nn.Conv2d(511, 8, 1)
    return net


def test_what_reads_no_channels_may_stand_between() -> None:
    found = align(Between(lambda net, x: x.tanh()), torch.randn(4, 3, 16, 16))
    assert found.images == 8 and found.shapes["last.weight"] == (8, 8, 1, 1)


@pytest.mark.parametrize(
    "net",
    [
        Between(Between.centred, last=0),
        Between(Between.added),
        Between(lambda net, x: x + x.amax(1, keepdim=True)),
        Between(lambda net, x: x / net.last.weight.shape[1]),
        Between(lambda net, x: x * net.last.weight.abs().mean()),
        Between(Between.read),
        Between(Between.slowed),
        Between(Between.counted),
        wider(),
        Shuffled(),
        Flat(),
        Tied(),
        Counting(),
        Apart(),
        nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, groups=6), nn.AdaptiveAvgPool2d(1)),
        nn.Sequential(nn.Conv2d(3, 6, 1), nn.GroupNorm(2, 6), nn.AdaptiveAvgPool2d(1)),
        nn.Sequential(nn.Conv2d(3, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
    ],
    ids=[
        "layer of zeros behind",
        "scale of zero",
        "all above zero",
        "shape",
        "weight",
        "weight elsewhere",
        "gradient",
        "statistics alone",
        "many channels",
        "shuffle",
        "flatten",
        "tied",
        "counting",
        "training alone",
        "depthwise",
        "groups",
        "nothing to do",
    ],
)
def test_where_zeros_would_change_something_images_alone_are_aligned(net: nn.Module) -> None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = align(net, torch.randn(4, 3, 16, 16) if isinstance(net, Between) else LARGE)
    [(name, shape)] = found.shapes.items()  # the first layer's, which reads the images
    own = net.state_dict()[name].shape
    assert found.images == 8 and shape == (own[0], 8, *own[2:])
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())


def test_where_images_are_looked_at_they_stay() -> None:
    class Gray(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x - x.mean(1, keepdim=True))

    net = Gray(nn.Conv2d(3, 5, 1), nn.Conv2d(5, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert align(net, torch.randn(4, 3, 32, 32)) == Aligned()
    net.append(nn.Linear(4, 2))
    found = align(net, torch.randn(4, 3, 32, 32))
    assert found.images is None and found.shapes["0.weight"] == (8, 3, 1, 1)
    assert align(nn.Flatten(), torch.randn(4, 3, 32, 32)) == Aligned()


def test_images_that_more_than_layers_read_stay() -> None:
    class Own(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.sub_(0.5))  # memory that is used again would no longer be zero

    net = Own(nn.Conv2d(3, 5, 1), nn.Conv2d(5, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.randn(4, 3, 8, 8)
    before = images.clone()
    found = align(net, images)
    assert found.images is None and found.shapes["0.weight"] == (8, 3, 1, 1)
    assert torch.equal(images, before)


def test_where_others_look_on_nothing_is_aligned() -> None:
    shown: list[Any] = []
    net = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Conv2d(5, 8, 1), nn.AdaptiveAvgPool2d(1))
    handle = net[0].register_forward_hook(lambda *seen: shown.append(seen))
    assert align(net, torch.randn(4, 3, 8, 8)) == Aligned() and not shown
    handle.remove()
    assert align(net, torch.randn(4, 3, 8, 8)).shapes
    of_class = net[0].forward
    net[0].forward = lambda x: of_class(x)  # of this very network, not of a copy
    assert align(net, torch.randn(4, 3, 8, 8)) == Aligned()


def test_what_is_not_copied_is_not_tried() -> None:
    class Alone(nn.Conv2d):
        def __deepcopy__(self, memo: object) -> "Alone":
            return self

    net = nn.Sequential(nn.Conv2d(3, 5, 1), Alone(5, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    weight = net[1].weight.detach().clone()
    assert align(net, torch.randn(4, 3, 8, 8)) == Aligned()
    assert torch.equal(net[1].weight, weight)


def test_no_generator_moves_and_chance_that_is_the_same_for_all_channels_may_stay() -> None:
    def draws(net: Any, x: Tensor) -> Tensor:
        random.random()
        np.random.rand()  # noqa: NPY002
        net.collected.append(x)
        return x * torch.rand(len(x), 1, 1, 1).round()

    def states() -> list[str]:
        numpy = np.random.get_state()  # noqa: NPY002
        return [str(torch.get_rng_state().tolist()), str(random.getstate()), str(numpy)]

    net = Between(draws)
    net.collected = []
    before = states()
    assert align(net, torch.randn(4, 3, 8, 8, generator=torch.Generator())).shapes["last.weight"]
    assert states() == before and not net.collected
    assert all(p.grad is None for p in net.parameters())
    assert all(module.training for module in net.modules())


def test_dropout_is_no_obstacle() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 5, 1), nn.Dropout2d(0.5), nn.Conv2d(5, 8, 1), nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    found = align(net, torch.randn(4, 3, 8, 8)).shapes
    assert {*found} == {"0.weight", "0.bias", "2.weight"} and found["2.weight"] == (8, 8, 1, 1)
    assert [m.p for m in net if isinstance(m, (nn.Dropout, nn.Dropout2d))] == [0.5, 0.5]


def test_one_layer_that_cannot_be_exchanged_leaves_all_alone() -> None:
    net = slimmed("vgg16", width=0.25).train()
    aligned = align(net, torch.randn(4, 3, 32, 32))
    next(net.parameters()).requires_grad_(False)
    call = Forward(net, torch.bfloat16, aligned)
    assert not call.statistics and all(own.wide is None for own in call.stand_ins)


@pytest.mark.parametrize("observed", [False, True])
def test_recorded_trainings_compute_in_eights(
    observed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Forward] = []

    def forward(*args: Any) -> Forward:
        made.append(Forward(*args))
        return made[-1]

    monkeypatch.setattr("prunebench.training.loop.Forward", forward)
    phase = replace(LONG, precision="bf16")
    tapes, found = Tapes(), []
    for recorder in (tapes, AsItComes(), None):
        torch.manual_seed(0)
        net = Mixed()
        told = stage(recorder=recorder, observers=[ZerosStay()] if observed else [])
        found.append(outcome(net, train(net, data(), phase, told)))
    assert [bool(call.statistics) for call in made] == 2 * [not observed] + [False]
    assert tapes.counts["replayed"] > 0 and found[0] == found[1]
    losses = [[row["loss"] for row in result[0]] for result in found]
    assert losses[0] == pytest.approx(losses[2], rel=0.05)
