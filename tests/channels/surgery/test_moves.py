"""Networks that move, count or change channels in place are cut exactly, or frozen by name."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunebench.channels import ChannelMap, GatherChannels, Plan, slim, trace, verify
from prunebench.channels.surgery import recheck, rewriter
from prunebench.channels.surgery.recheck import Recheck, replay
from prunebench.channels.surgery.slim import keep_only
from prunebench.errors import PruningError

Forward = Callable[[Any, Tensor], Tensor]


class Net(nn.Module):
    """Layers a (3 -> 8), d (depthwise), b (reads `wide`), fc, and a forward between a and b."""

    def __init__(self, between: Forward, wide: int, **layers: nn.Module) -> None:
        super().__init__()
        self.a, self.d = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.b, self.fc = nn.Conv2d(wide, 6, 1), nn.Linear(6, 3)
        self.between = between
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        return self.fc(F.relu(self.b(self.between(self, x))).mean((2, 3)))


def shuffled(x: Tensor, groups: int = 2) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def gsconv(net: Net, x: Tensor) -> Tensor:
    both = torch.cat([x, net.d(x)], 1)
    n, c, h, w = both.size()
    pairs = both.reshape(n * c // 2, 2, h * w).permute(1, 0, 2).reshape(2, -1, c // 2, h, w)
    return torch.cat([pairs[0], pairs[1]], 1)


def focus(net: Net, x: Tensor) -> Tensor:
    """The same channels from four places of the image."""
    parts = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
    return shuffled(torch.cat(parts, 1), 4)


TWO_BRANCHES: dict[str, tuple[Forward, int]] = {
    "ghost": (lambda net, x: torch.cat([x, net.d(x)], 1)[:, :13], 13),
    "gsconv": (gsconv, 16),
    "crelu": (lambda net, x: shuffled(torch.cat([x, F.relu(-x)], 1)), 16),
    "pool": (lambda net, x: F.channel_shuffle(torch.cat([x, F.max_pool2d(x, 3, 1, 1)], 1), 2), 16),
    "flip": (lambda net, x: shuffled(torch.cat([x, x.flip(-1)], 1)), 16),
    "focus": (focus, 32),
    "stack": (lambda net, x: torch.stack([x, net.d(x)], 2).flatten(1, 2)[:, 3:14], 11),
    "unshuffle": (lambda net, x: F.pixel_unshuffle(x, 2)[:, 5:27], 22),
    "shuffle and back": (lambda net, x: F.pixel_shuffle(F.pixel_unshuffle(x, 2), 2), 8),
    "twice cut": (lambda net, x: torch.cat([x, net.d(x)], 1)[:, 4:12].flip(1), 8),
    "channels last": (lambda net, x: x.permute(0, 2, 3, 1)[..., :5].permute(0, 3, 1, 2), 5),
    "last ones": (lambda net, x: x[:, -3:] * x[:, :3], 3),
}


def ready(net: nn.Module, scramble: Callable[[nn.Module], None]) -> nn.Module:
    net = net.double().eval()
    scramble(net)
    return net


def example() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn((2, 3, 8, 8), generator=generator, dtype=torch.float64)


def exact(net: nn.Module, cmap: ChannelMap, plan: Plan) -> bool:
    return verify(net, slim(net, cmap, plan), cmap, plan, example()) < 1e-9


@pytest.mark.parametrize("name", TWO_BRANCHES)
def test_both_halves_keep_their_own_data(name: str, scramble, random_plan) -> None:
    torch.manual_seed(0)
    net = ready(Net(*TWO_BRANCHES[name]), scramble)
    cmap = trace(net, example())
    assert "a" in {group.name for group in cmap.groups}, cmap.frozen
    assert all(exact(net, cmap, random_plan(cmap, seed)) for seed in range(6))


def selected(net: Net, x: Tensor) -> Tensor:
    """Two branches, mixed channel by channel as a softmax over both says."""
    branches = torch.stack([x, net.d(x)], 1)
    scores = net.select(branches.sum(1).mean((2, 3), keepdim=True))
    return (branches * scores.view(-1, 2, 8).softmax(1)[..., None, None]).sum(1)


#: views by numbers that are written down
FIXED: dict[str, tuple[Forward, int]] = {
    "row": (lambda net, x: x.mean((2, 3)).view(-1, 8)[..., None, None], 8),
    "pooled": (lambda net, x: x.mean((2, 3), keepdim=True).view(-1, 8)[..., None, None], 8),
    "all in one row": (lambda net, x: x.view(-1, 8 * 8 * 8)[..., None, None], 512),
    "of a part": (lambda net, x: x[:, 2:7].reshape(-1, 5 * 64)[..., None, None], 320),
    "tokens": (lambda net, x: x.view(-1, 8, 64).mT.reshape(-1, 8, 8, 8).permute(0, 3, 1, 2), 8),
    "selected": (selected, 8),
}


@pytest.mark.parametrize("name", FIXED)
def test_a_view_by_fixed_numbers_follows_one_cut_and_another(
    name: str, scramble, random_plan
) -> None:
    between, wide = FIXED[name]
    net = ready(Net(between, wide, select=nn.Conv2d(8, 16, 1)), scramble)
    cmap = trace(net, example()[:1])
    assert [group.name for group in cmap.groups] == ["a", "b"], cmap.frozen
    for seed in range(4):
        plan = random_plan(cmap, seed)
        slimmed = slim(net, cmap, plan)
        assert verify(net, slimmed, cmap, plan, example()) < 1e-9  # of more images than one
        again = trace(slimmed, example()[:1])
        assert {group.size for group in again.groups} == {len(one) for one in plan.kept.values()}
        assert exact(slimmed, again, random_plan(again, seed))


def halves(net: Net, x: Tensor) -> Tensor:
    """Halves of the channels go through a layer one after the other, as images do."""
    return net.halved(x.reshape(-1, 2, 4, 8, 8).flatten(0, 1)).view(-1, 6, 8, 8)


def test_no_view_is_mended_that_takes_channels_for_images(scramble, random_plan) -> None:
    net = ready(Net(halves, 6, halved=nn.Conv2d(4, 3, 1)), scramble)
    cmap = trace(net, example()[:1])
    assert "a" in cmap.frozen
    for seed in range(3):
        plan = random_plan(cmap, seed)
        assert verify(net, slim(net, cmap, plan), cmap, plan, example()) < 1e-9


def test_a_view_whose_channels_stay_in_order_is_no_copy(scramble) -> None:
    net = ready(Net(*FIXED["all in one row"]), scramble)
    slimmed = slim(net, trace(net, example()), Plan({"a": [1, 6]}))
    assert not any(isinstance(module, GatherChannels) for module in slimmed.modules())


@pytest.mark.parametrize(
    "between",
    [
        lambda net, x: x * x.new_full((1, 1, 8, 1), net.strides[1]),
        lambda net, x: x + torch.full((8, 1), net.strides[1:].unbind()[0], dtype=x.dtype),
    ],
)
def test_a_constant_of_the_code_may_fill_another(between: Forward, scramble, random_plan) -> None:
    net = ready(Net(between, 8), scramble)
    net.strides = torch.tensor([2.0, 3.0])  # neither a parameter nor a buffer
    cmap = trace(net, example())
    assert [group.name for group in cmap.groups] == ["a", "b"]
    assert all(exact(net, cmap, random_plan(cmap, seed)) for seed in range(2))


def test_names_of_modules_may_hold_whatever_a_path_does(scramble, random_plan) -> None:
    named = {"1/norm": nn.BatchNorm2d(8), "2/from": nn.Conv2d(8, 8, 1)}
    net = ready(Net(lambda net, x: [x := layer(x) for layer in net.inner][-1], 8), scramble)
    net.inner = nn.Sequential()
    for name, layer in named.items():
        net.inner.add_module(name, layer.double().eval())
    cmap = trace(net, example())
    assert [group.name for group in cmap.groups] == ["a", "inner.2/from", "b"]
    assert exact(net, cmap, random_plan(cmap, 0))


def test_an_example_that_a_linear_layer_cannot_read_is_refused(scramble) -> None:
    net = ready(Net(lambda net, x: x.flatten(1)[..., None, None], 512), scramble)
    net.fc = nn.Linear(7, 3).double()
    with pytest.raises(PruningError, match=r"fc \(Linear\) .* 6 features come where 7 are read"):
        trace(net, example())


@pytest.mark.parametrize("name", ["ghost", "crelu", "pool", "twice cut", "flatten"])
def test_one_channel_is_enough(name: str, scramble) -> None:
    between, wide = TWO_BRANCHES.get(name, (lambda net, x: x.flatten(1)[:, :, None, None], 512))
    net = ready(Net(between, wide), scramble)
    cmap = trace(net, example())
    assert all(exact(net, cmap, Plan({"a": [kept]})) for kept in (0, 3, 4, 7))


def swap_branches(net: Net, x: Tensor) -> Tensor:
    """The branches are told apart by how many channels there are."""
    first, second = x, net.d(x)
    return torch.cat([first, second] if x.size(1) == 8 else [second, first], 1)


class OwnNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(8)), nn.Parameter(torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), (8,), self.weight, self.bias)
        return x.permute(0, 3, 1, 2)


def asserted(net: Net, x: Tensor) -> Tensor:
    assert x.size(1) == 8, "eight or nothing"
    return x


def own_groups(net: Net, x: Tensor) -> Tensor:
    return F.conv2d(x, net.d.weight, None, 1, 1, groups=8)


def in_place(net: Net, x: Tensor) -> Tensor:
    x = x + 1
    x[:, :4].mul_(2)
    return x


def in_place_of_all(net: Net, x: Tensor) -> Tensor:
    y = net.d(x)
    x.flatten(2).sigmoid_()
    return torch.cat([x, y], 1)[:, :12]


def doubled(net: Net, x: Tensor) -> Tensor:
    half = x[:, 4:]
    half += 1
    return x


COUNTED: dict[str, tuple[Forward, int, str]] = {
    "scale": (lambda net, x: x * x.size(1) ** -0.5, 8, "a number that depends on how many"),
    "constant": (lambda net, x: x * torch.full((1,), 1 / x.shape[1]), 8, "mul"),
    "branch": (lambda net, x: torch.tanh(x) if len(x[0]) < 8 else x, 8, "tanh runs where"),
    "by name": (
        lambda net, x: x if getattr(net.a, f"out_{'channels'}") == 8 else x.neg(),
        8,
        "neg runs where",
    ),
    "attribute": (lambda net, x: x if net.a.out_channels == 8 else x.neg(), 8, "neg runs where"),
    "order": (swap_branches, 16, "conv2d meets other channels"),
    "assert": (asserted, 8, "eight or nothing"),
    "groups": (own_groups, 8, "does not follow a cut"),
    "weight": (lambda net, x: x if len(net.a.weight) == 8 else x.neg(), 8, "neg runs where"),
    "looked up": (
        lambda net, x: x.flatten(2).gather(2, net.d(x).flatten(2).max(2, True)[1])[..., None],
        8,
        "unknown operation gather",
    ),
    "in place": (in_place, 8, "a part of it is changed in place"),
    "added in place": (doubled, 8, "a part of it is changed in place"),
}


@pytest.mark.parametrize("name", COUNTED)
def test_a_count_in_the_code_freezes_what_it_concerns(name: str, scramble, random_plan) -> None:
    between, wide, why = COUNTED[name]
    net = ready(Net(between, wide), scramble)
    cmap = trace(net, example())
    assert why in cmap.frozen["a"]
    assert [group.name for group in cmap.groups] == ["b"]
    assert all(exact(net, cmap, random_plan(cmap, seed)) for seed in range(3))


def attention(power: int) -> nn.Module:
    """Heads whose numbers are those of the channels that come in, scaled by a power of these."""

    def forward(heads: nn.Module, x: Tensor) -> Tensor:
        q = heads.qkv(x.flatten(2).transpose(1, 2)).unflatten(2, (2, 4, x.size(1) // 4))
        mixed = (q[:, :, 0] @ q[:, :, 1].transpose(-1, -2)).softmax(-1) @ q[:, :, 1]
        mixed = mixed * x.size(1) ** power if power else mixed
        return heads.proj(mixed.flatten(2)).transpose(1, 2).unflatten(2, x.shape[2:])

    heads: nn.Module = type("Heads", (nn.Module,), {"forward": forward})()
    heads.qkv, heads.proj = nn.Linear(8, 16), nn.Linear(8, 8)
    return heads


def test_heads_keep_their_numbers_where_fewer_channels_come_in(scramble, random_plan) -> None:
    net = ready(Net(lambda net, x: net.heads(x), 8, heads=attention(0)), scramble)
    cmap = trace(net, example())
    assert [group.name for group in cmap.groups] == ["a", "heads.proj", "b"]
    assert all(exact(net, cmap, random_plan(cmap, seed)) for seed in range(3))


def test_a_module_that_fails_freezes_what_it_is_given_and_no_more(scramble, random_plan) -> None:
    net = ready(Net(lambda net, x: net.heads(x), 8, heads=attention(-1)), scramble)
    cmap = trace(net, example())
    assert "heads does not follow a cut: proj: what it is given" in cmap.frozen["a"]
    assert [group.name for group in cmap.groups] == ["heads.proj", "b"]
    assert exact(net, cmap, random_plan(cmap, 0))


def scaled(net: Net, x: Tensor) -> Tensor:
    """A scale that nothing but the number of channels of `a` decides, where no channels are."""
    row = net.q(x.mean((2, 3)))
    return net.p((row[:, None] @ row[..., None]) / x.size(1)).flatten(1)[..., None, None] + net.r(x)


class Counts(Net):
    """Returns what depends on the number of its channels, too."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x), (x.mean() + 1) * self.a(x).size(1)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("kind", "between", "rest"), [(Net, scaled, ["p", "b"]), (Counts, lambda net, x: x, ["b"])]
)
def test_of_groups_that_nobody_names_those_stay_that_cannot_be_cut_alone(
    kind: type[Net], between: Forward, rest: list[str], scramble, random_plan
) -> None:
    layers = {"q": nn.Linear(8, 4), "p": nn.Linear(1, 6), "r": nn.Conv2d(8, 6, 1)}
    net = ready(kind(between, 6 if kind is Net else 8, **layers), scramble)
    cmap = trace(net, example())
    assert "meets other channels" in cmap.frozen["a"]
    assert [group.name for group in cmap.groups] == rest
    assert exact(net, cmap, random_plan(cmap, 0))


def test_a_branch_that_only_a_harder_cut_takes_is_told_by_slim(scramble) -> None:
    net = ready(Net(lambda net, x: x.neg() if x.size(1) < 3 else x, 8), scramble)
    cmap = trace(net, example())
    assert exact(net, cmap, Plan({"a": [0, 1, 2]}))
    message = (
        "the forward of the network does not follow the cut: neg runs where conv2d did before the "
        "cut; leave these groups whole (budget.exclude): a"
    )
    with pytest.raises(PruningError, match=re.escape(message)):
        slim(net, cmap, Plan({"a": [0, 1]}))


def test_a_norm_with_a_width_of_its_own_is_named(scramble) -> None:
    net = ready(Net(lambda net, x: net.norm(x), 8, norm=OwnNorm()), scramble)
    cmap = trace(net, example())
    assert cmap.frozen["a"].startswith("norm does not follow a cut: normalized_shape (8,)")
    assert [group.name for group in cmap.groups] == ["b"]


def test_a_view_of_everything_may_be_changed_in_place(scramble, random_plan) -> None:
    net = ready(Net(in_place_of_all, 12), scramble)
    cmap = trace(net, example())
    assert all(exact(net, cmap, random_plan(cmap, seed)) for seed in range(3))


def test_unpooling_ties_to_where_the_indices_come_from(scramble, random_plan) -> None:
    def between(net: Net, x: Tensor) -> Tensor:
        y, where = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(net.c(y), where, 2)

    net = ready(Net(between, 8, c=nn.Conv2d(8, 8, 1)), scramble)
    cmap = trace(net, example())
    group = cmap.group("a")
    assert [site.module for site in group.producers] == ["a", "c"]
    assert all(exact(net, cmap, random_plan(cmap, seed)) for seed in range(3))


def test_every_owner_of_a_shared_weight_is_fitted(scramble, random_plan) -> None:
    wider = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8)
    net = Net(lambda net, x: net.d(x) + net.wider(x), 8, wider=wider)
    wider.weight = net.d.weight
    ready(net, scramble)
    cmap = trace(net, example())
    plan = Plan({"a": [1, 4, 6]})
    assert exact(net, cmap, plan)
    assert slim(net, cmap, plan).wider.groups == 3


class Chunked(nn.Module):
    """Halves go different ways, as in YOLOv8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(8, 2 * width, 1), nn.Conv2d(width, width, 3, padding=1)
        self.stride = 4

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.one(x).chunk(2, 1))
        y.append(F.relu(self.two(y[-1])))
        return torch.cat(y, 1)


class Moody(Net):
    """Its own forward cannot be captured: it returns something else in training."""

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return x if self.training else x.softmax(1) * self.block.stride


def test_only_the_module_that_moves_is_captured(scramble, random_plan) -> None:
    net = ready(Moody(lambda net, x: net.block(x), 18, block=Chunked(6)), scramble)
    cmap = trace(net, example())
    assert "block.one" in {group.name for group in cmap.groups}
    assert all(exact(net, cmap, random_plan(cmap, seed)) for seed in range(4))
    slimmed = slim(net, cmap, Plan({"block.one": [0, 1, 2, 3, 8]}))
    assert type(slimmed) is Moody
    assert any(isinstance(module, GatherChannels) for module in slimmed.block.modules())
    assert dict(slimmed.named_parameters()).keys() == dict(net.named_parameters()).keys()


class Padded(nn.Module):
    """Option A as most code writes it; it computes nothing before the network goes on."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, 0, 2, 3))


def test_a_module_that_only_pads_is_mended(scramble, random_plan) -> None:
    def padded(net: Net, x: Tensor) -> Tensor:
        return net.c(x) + net.block(x)

    net = ready(Net(padded, 13, block=Padded(), c=nn.Conv2d(8, 13, 1)), scramble)
    cmap = trace(net, example())
    assert {"a", "c"} <= {group.name for group in cmap.groups}, cmap.frozen
    assert all(exact(net, cmap, random_plan(cmap, seed)) for seed in range(4))


class OwnWeight(nn.Module):
    """Convolves with a weight of its own, and moves the channels that it makes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.weight)
        return torch.cat([y[:, 4:], y[:, :4]], 1)


def test_a_module_that_moves_and_has_weights_is_mended(scramble, random_plan) -> None:
    net = ready(Net(lambda net, x: net.own(x), 8, own=OwnWeight()), scramble)
    cmap = trace(net, example())
    assert cmap.group("own").size == 8
    assert all(exact(net, cmap, random_plan(cmap, seed)) for seed in range(4))


def test_a_module_that_is_called_twice_is_mended_once(scramble, random_plan) -> None:
    def between(net: Net, x: Tensor) -> Tensor:
        return net.block(x) + net.block(F.max_pool2d(x, 3, 1, 1))

    net = ready(Moody(between, 18, block=Chunked(6)), scramble)
    cmap = trace(net, example())
    assert "block.one" in {group.name for group in cmap.groups}
    assert all(exact(net, cmap, random_plan(cmap, seed)) for seed in range(4))


class Swapped(nn.Module):
    """Has no weights, and so may move other channels in every call."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, 4:], x[:, :4]], 1)


@pytest.mark.parametrize("same", [True, False])
def test_calls_that_need_different_gathers_freeze_what_they_move(same, scramble) -> None:
    def between(net: Moody, x: Tensor) -> Tensor:
        return torch.cat([net.block(x), net.block(x.tanh() if same else F.relu(net.c(x)))], 1)

    net = ready(Moody(between, 16, block=Swapped(), c=nn.Conv2d(8, 8, 1)), scramble)
    net.block.stride = 1
    cmap = trace(net, example())
    names = {group.name for group in cmap.groups}
    if same:
        assert names == {"a", "b"}
        assert exact(net, cmap, Plan({"a": [0, 1, 2, 6]}))
    else:
        assert names == {"b"}
        assert cmap.frozen["a"] == "block does not follow a cut: its calls need different channels"
    assert exact(net, cmap, Plan({"b": [0, 3]}))


@pytest.mark.skipif(
    "__torch_function__" not in inspect.getsource(nn.Module.__setattr__),
    reason="an older torch captures no module that exchanges its buffer",
)
def test_a_captured_network_has_the_buffers_that_its_forward_exchanges(scramble) -> None:
    def between(net: Net, x: Tensor) -> Tensor:
        net.seen = torch.ones_like(x[:1, :1]) * 2
        return shuffled(x * net.seen)

    net = Net(between, 8)
    net.register_buffer("seen", torch.zeros(1), persistent=True)
    net.register_buffer("passing", torch.zeros(1), persistent=False)
    ready(net, scramble)
    cmap = trace(net, example())
    plan = Plan({"a": [0, 1, 4, 6]})
    assert exact(net, cmap, plan)
    slimmed = slim(net, cmap, plan)
    assert {"seen", "passing"} <= dict(slimmed.named_buffers()).keys()
    assert set(net.state_dict()) == {name for name in slimmed.state_dict() if "gather" not in name}
    assert not slimmed.seen.is_meta


def test_a_module_whose_forward_was_replaced_is_not_captured(scramble) -> None:
    net = ready(Net(lambda net, x: net.block(x), 18, block=Chunked(6)), scramble)
    net.block.forward = types.MethodType(lambda self, x: 2 * Chunked.forward(self, x), net.block)
    cmap = trace(net, example())
    assert "another forward" in cmap.frozen["block.one"]


def test_where_a_module_cannot_be_captured_only_what_it_moves_is_frozen(scramble) -> None:
    class Loop(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            parts = [x[:, at : at + 4] for at in range(0, 8, 4)]
            total = torch.zeros_like(parts[0])
            for part in sorted(parts, key=lambda t: t.data_ptr()):
                total = total + part
            return total

    net = ready(Net(lambda net, x: net.loop(x), 4, loop=Loop()), scramble)
    cmap = trace(net, example())
    assert [group.name for group in cmap.groups] == ["b"]
    assert "loop" in cmap.frozen["a"]


# -- verify and the recheck, attacked ----------------------------------------------------------


def ghost() -> Net:
    torch.manual_seed(0)
    return Net(*TWO_BRANCHES["ghost"])


PLAN = Plan({"a": [0, 1, 4, 6, 7]})


def test_verify_sees_a_gather_that_takes_one_branch_twice(scramble, monkeypatch) -> None:
    def by_label(want: Tensor, held: Tensor) -> list[int]:
        at = {int(one) & 0xFFFFFFFF: position for position, one in enumerate(held)}
        return [at.get(int(one) & 0xFFFFFFFF, -1) for one in want]

    net = ready(ghost(), scramble)
    cmap = trace(net, example())
    assert exact(net, cmap, PLAN)
    monkeypatch.setattr(rewriter, "_index_of", by_label)
    assert not exact(net, cmap, PLAN)


def test_verify_sees_a_gather_that_is_left_out(scramble, monkeypatch) -> None:
    net = ready(Net(lambda net, x: shuffled(torch.cat([x, net.d(x)], 1), 4), 16), scramble)
    cmap = trace(net, example())
    plan = Plan({"a": [0, 1, 4, 6]})
    assert exact(net, cmap, plan)
    monkeypatch.setattr(recheck.Recheck, "agrees", lambda self, was, now: True)
    assert not exact(net, cmap, plan)


def test_verify_sees_a_number_that_changed(scramble, monkeypatch) -> None:
    monkeypatch.setattr(recheck.Recheck, "step", lambda self, step: _pass(self))
    net = ready(Net(COUNTED["scale"][0], 8), scramble)
    assert not exact(net, trace(net, example()), PLAN)


def _pass(check: recheck.Recheck) -> None:
    """Goes one step on and compares nothing."""
    check.made = check.cmap.tape.steps[check.at].made
    check.at += 1


def test_verify_sees_a_slice_that_was_changed_in_place(scramble, monkeypatch) -> None:
    from prunebench.channels.labels.labeller import Labeller

    monkeypatch.setattr(Labeller, "_changed", lambda self, t, base: None)
    net = ready(Net(in_place, 8), scramble)
    cmap = trace(net, example())
    if "a" in {group.name for group in cmap.groups}:
        assert not exact(net, cmap, PLAN)
    else:  # the recheck is a second line
        assert "mul_" in cmap.frozen["a"]


def test_the_recheck_sees_another_branch_with_the_same_channels(scramble) -> None:
    net = ready(Net(lambda net, x: torch.cat([x, net.d(x)], 1)[:, 4:12].flip(1), 8), scramble)
    cmap = trace(net, example())
    kept = cmap.keeps(Plan({"a": [0, 1, 2, 3]}))
    small = keep_only(net, cmap, kept)
    small.between = lambda net, x: torch.cat([x, net.d(x)], 1)[:, :4].flip(1)
    found = replay(small, Recheck(cmap, kept))
    assert found is not None
    assert "meets other channels" in found.why


def test_the_recheck_sees_a_tie_that_was_lost(scramble, monkeypatch) -> None:
    from prunebench.channels.labels.tape import Tape

    def between(net: Net, x: Tensor) -> Tensor:
        y, where = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(net.c(y), where, 2)

    net = ready(Net(between, 8, c=nn.Conv2d(8, 8, 1)), scramble)
    monkeypatch.setattr(Tape, "tie", lambda self, a, b: None)
    cmap = trace(net, example())
    plan = Plan({"a": [0, 1, 2, 3], "c": [0, 1, 4, 5]})
    assert {"a", "c"} <= {group.name for group in cmap.groups}
    assert not exact(net, cmap, plan)
