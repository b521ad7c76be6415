"""Small networks, one for each way in which channels can be tied, moved or read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunebench.channels import GatherChannels, Plan, mask, slim, trace, verify
from prunebench.errors import PruningError


class Net(nn.Module):
    """A network from named layers and a forward function."""

    def __init__(self, forward: Callable[[Net, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._forward = forward

    def __getattr__(self, name: str) -> nn.Module:
        return super().__getattr__(name)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def conv(i: int, o: int, k: int = 3, **more: int) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, padding=k // 2, **more)


def head(net: Net, x: Tensor) -> Tensor:
    return net.fc(x.mean((2, 3)))


def groupconv() -> Net:
    return Net(
        lambda n, x: head(n, F.relu(n.c(F.relu(n.b(F.relu(n.a(x))))))),
        a=conv(3, 12), b=conv(12, 24, groups=4), c=conv(24, 8), fc=nn.Linear(8, 5),
    )  # fmt: skip


def dw_multiplier() -> Net:
    return Net(
        lambda n, x: head(n, F.relu(n.c(F.relu(n.bn(n.b(F.relu(n.a(x)))))))),
        a=conv(3, 8), b=conv(8, 16, groups=8), bn=nn.BatchNorm2d(16), c=conv(16, 8),
        fc=nn.Linear(8, 5),
    )  # fmt: skip


def dw_reduce() -> Net:
    return Net(
        lambda n, x: head(n, F.relu(n.c(F.relu(n.b(F.relu(n.a(x))))))),
        a=conv(3, 16), b=conv(16, 8, groups=8), c=conv(8, 6), fc=nn.Linear(6, 5),
    )  # fmt: skip


def shared_conv() -> Net:
    return Net(
        lambda n, x: head(n, n.c(F.relu(n.b(F.relu(n.b(F.relu(n.a(x)))))))),
        a=conv(3, 10), b=conv(10, 10), c=conv(10, 8), fc=nn.Linear(8, 5),
    )  # fmt: skip


def pixelshuffle() -> Net:
    return Net(
        lambda n, x: head(n, F.relu(n.b(F.pixel_shuffle(F.relu(n.a(x)), 2)))),
        a=conv(3, 24), b=conv(6, 8), fc=nn.Linear(8, 5),
    )  # fmt: skip


def there_and_back() -> Net:
    def forward(n: Net, x: Tensor) -> Tensor:
        x = F.relu(n.a(x))
        y = F.pixel_unshuffle(torch.sigmoid(n.d(nn.PixelShuffle(2)(x))), downscale_factor=2)
        return head(n, F.relu(n.b(torch.cat([x, y], 1))))

    return Net(
        forward, a=conv(3, 24), d=conv(6, 6, groups=6), b=conv(48, 8), fc=nn.Linear(8, 5)
    )  # fmt: skip


def groupnorm() -> Net:
    return Net(
        lambda n, x: head(n, F.relu(n.g2(n.b(F.relu(n.g1(n.a(x))))))),
        a=conv(3, 12), g1=nn.GroupNorm(3, 12), b=conv(12, 8), g2=nn.GroupNorm(8, 8),
        fc=nn.Linear(8, 5),
    )  # fmt: skip


def unet() -> Net:
    def forward(n: Net, x: Tensor) -> Tensor:
        a = F.relu(n.a(x))
        b = F.relu(n.b(F.max_pool2d(a, 2)))
        return n.out(F.relu(n.c(torch.cat([n.up(b), a], 1))))

    return Net(
        forward, a=conv(3, 8), b=conv(8, 16), up=nn.ConvTranspose2d(16, 8, 2, stride=2),
        c=conv(16, 8), out=nn.Conv2d(8, 2, 1),
    )  # fmt: skip


def swap_halves() -> Net:
    def forward(n: Net, x: Tensor) -> Tensor:
        left, right = F.relu(n.a(x)).chunk(2, dim=1)
        return head(n, F.relu(n.b(torch.cat([right, left], 1))))

    return Net(forward, a=conv(3, 16), b=conv(16, 8), fc=nn.Linear(8, 5))


def preact() -> Net:
    def forward(n: Net, x: Tensor) -> Tensor:
        x = n.a(x)
        x = x + n.c(F.relu(n.bn2(n.b(F.relu(n.bn1(x))))))
        return head(n, F.relu(n.bn3(x)))

    return Net(
        forward, a=conv(3, 12), bn1=nn.BatchNorm2d(12), b=conv(12, 8), bn2=nn.BatchNorm2d(8),
        c=conv(8, 12), bn3=nn.BatchNorm2d(12), fc=nn.Linear(12, 5),
    )  # fmt: skip


def squeeze_excite() -> Net:
    def forward(n: Net, x: Tensor) -> Tensor:
        x = F.relu(n.bn(n.a(x)))
        gate = torch.sigmoid(n.up(F.relu(n.down(F.adaptive_avg_pool2d(x, 1)))))
        return head(n, F.relu(n.b(x * gate)))

    return Net(
        forward, a=conv(3, 12), bn=nn.BatchNorm2d(12), down=nn.Conv2d(12, 4, 1),
        up=nn.Conv2d(4, 12, 1), b=conv(12, 8), fc=nn.Linear(8, 5),
    )  # fmt: skip


def sigmoid_before_conv() -> Net:
    return Net(
        lambda n, x: head(n, F.softplus(n.b(torch.sigmoid(n.a(x))))),
        a=conv(3, 8), b=conv(8, 8), fc=nn.Linear(8, 5),
    )  # fmt: skip


def prelu() -> Net:
    return Net(
        lambda n, x: head(n, n.p(n.b(n.q(n.a(x))))),
        a=conv(3, 8), q=nn.PReLU(), b=conv(8, 8), p=nn.PReLU(8), fc=nn.Linear(8, 5),
    )  # fmt: skip


def flatten() -> Net:
    return Net(
        lambda n, x: n.fc2(F.relu(n.fc1(F.max_pool2d(F.relu(n.a(x)), 4).view(x.size(0), -1)))),
        a=conv(3, 8), fc1=nn.Linear(8 * 16, 12), fc2=nn.Linear(12, 5),
    )  # fmt: skip


def option_a() -> Net:
    """The zero-padded shortcut of the CIFAR ResNets, with hard-coded numbers."""

    def forward(n: Net, x: Tensor) -> Tensor:
        x = F.relu(n.bn0(n.a(x)))
        y = n.bn2(n.c(F.relu(n.bn1(n.b(x)))))
        return head(n, F.relu(y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))))

    return Net(
        forward, a=conv(3, 8), bn0=nn.BatchNorm2d(8), b=conv(8, 16, stride=2),
        bn1=nn.BatchNorm2d(16), c=conv(16, 16), bn2=nn.BatchNorm2d(16), fc=nn.Linear(16, 5),
    )  # fmt: skip


def option_a_zeros() -> Net:
    """The same with zeros made in the forward."""

    def forward(n: Net, x: Tensor) -> Tensor:
        x = F.relu(n.a(x))
        short = F.avg_pool2d(x, 2)
        zeros = x.new_zeros(short.size(0), 8, short.size(2), short.size(3))
        return head(n, F.relu(n.b(x) + torch.cat([short, zeros], 1)))

    return Net(forward, a=conv(3, 8), b=conv(8, 16, stride=2), fc=nn.Linear(16, 5))


def option_a_gather() -> Net:
    """The same with an index buffer: nothing to rewrite but the buffer."""
    index = [-1] * 4 + list(range(8)) + [-1] * 4
    return Net(
        lambda n, x: head(n, F.relu(n.b(F.relu(n.a(x))) + n.short(F.relu(n.a(x))[..., ::2, ::2]))),
        a=conv(3, 8), b=conv(8, 16, stride=2), short=GatherChannels(index), fc=nn.Linear(16, 5),
    )  # fmt: skip


def shuffle() -> Net:
    def forward(n: Net, x: Tensor) -> Tensor:
        x = F.relu(n.b(F.relu(n.a(x))))
        b, c, h, w = x.shape
        x = x.view(b, 3, c // 3, h, w).transpose(1, 2).reshape(b, c, h, w)
        return head(n, F.relu(n.d(F.relu(n.c(x)))))

    return Net(
        forward, a=conv(3, 12), b=conv(12, 12, groups=3), c=conv(12, 12, groups=3), d=conv(12, 8),
        fc=nn.Linear(8, 5),
    )  # fmt: skip


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(8, 1, 1)), nn.Parameter(torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift.view(1, -1, 1, 1)


def padded_by_torch() -> Net:
    """Pads with `torch.constant_pad_nd`, whose third argument is the value and no mode."""
    return Net(
        lambda n, x: head(n, n.b(torch.constant_pad_nd(F.relu(n.a(x)), (1, 1, 1, 1), 0.5))),
        a=conv(3, 8), b=nn.Conv2d(8, 8, 3), fc=nn.Linear(8, 5),
    )  # fmt: skip


def scale() -> Net:
    return Net(
        lambda n, x: head(n, F.relu(n.b(n.s(n.a(x))))),
        a=conv(3, 8), s=Scaled(), b=conv(8, 8), fc=nn.Linear(8, 5),
    )  # fmt: skip


def tokens() -> Net:
    """Patches as tokens, a layer norm and an MLP with a residual."""

    def forward(n: Net, x: Tensor) -> Tensor:
        x = n.a(x).flatten(2).transpose(1, 2)
        x = x + n.down(F.gelu(n.up(n.norm(x))))
        return n.fc(n.last(x).mean(1))

    return Net(
        forward, a=nn.Conv2d(3, 12, 4, stride=4), norm=nn.LayerNorm(12), up=nn.Linear(12, 24),
        down=nn.Linear(24, 12), last=nn.LayerNorm(12), fc=nn.Linear(12, 5),
    )  # fmt: skip


STRUCTURES = [
    groupconv, dw_multiplier, dw_reduce, shared_conv, pixelshuffle, there_and_back, groupnorm, unet,
    swap_halves, preact, squeeze_excite, sigmoid_before_conv, prelu, flatten, option_a,
    option_a_zeros, option_a_gather, padded_by_torch, shuffle, scale, tokens,
]  # fmt: skip


@pytest.mark.parametrize("build", STRUCTURES, ids=lambda build: build.__name__)
@pytest.mark.parametrize("seed", range(3))
def test_slim_equals_mask(build: Callable[[], Net], seed: int, check_exact) -> None:
    torch.manual_seed(seed)
    check_exact(build(), (2, 3, 16, 16), seed=seed, most_kept=0.97)


def test_a_decision_by_value_is_refused() -> None:
    net = Net(
        lambda n, x: head(n, n.b(n.a(x)) if x.sum() > 0 else n.a(x)),
        a=conv(3, 8), b=conv(8, 8), fc=nn.Linear(8, 5),
    )  # fmt: skip
    with pytest.raises(PruningError, match="asks for the value of a tensor"):
        trace(net, torch.randn(1, 3, 8, 8))


def test_an_unknown_operation_freezes_and_is_named() -> None:
    net = Net(
        lambda n, x: head(n, F.relu(n.b(torch.cumsum(n.a(x), 1)))),
        a=conv(3, 8), b=conv(8, 8), fc=nn.Linear(8, 5),
    )  # fmt: skip
    cmap = trace(net, torch.randn(1, 3, 8, 8))
    assert cmap.frozen == {"a": "unknown operation cumsum", "fc": "the output of the network"}
    assert [g.name for g in cmap.groups] == ["b"]


def test_weights_computed_in_the_forward_freeze() -> None:
    net = Net(
        lambda n, x: head(n, F.relu(F.conv2d(F.relu(n.a(x)), n.b.weight * 2, padding=1))),
        a=conv(3, 8), b=conv(8, 6), fc=nn.Linear(6, 5),
    )  # fmt: skip
    cmap = trace(net, torch.randn(1, 3, 8, 8))
    assert cmap.groups == []
    assert "its weight is computed in the forward" in cmap.frozen.values()


def test_what_is_not_used_is_listed() -> None:
    net = Net(lambda n, x: head(n, n.a(x)), a=conv(3, 8), b=conv(8, 8), fc=nn.Linear(8, 5))
    assert trace(net, torch.randn(1, 3, 8, 8)).frozen["b"] == "it is not used in the forward"


def test_a_wrong_consumer_index_shows(random_plan, scramble) -> None:
    net = flatten().double().eval()
    example = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    scramble(net)
    cmap = trace(net, example)
    plan = random_plan(cmap, 0)
    slimmed = slim(net, cmap, plan)
    with torch.no_grad():
        slimmed.fc1.weight.copy_(slimmed.fc1.weight.roll(1, dims=1))
    assert verify(net, slimmed, cmap, plan, example) > 1e-3


def test_hand_computed() -> None:
    """1x1 kernels on one pixel: [1, 2] -> 3 hidden -> 1, the second hidden channel dropped."""
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Conv2d(3, 1, 1), nn.Flatten())
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 1], [2, 1], [0, 3]])[..., None, None])
        net[0].bias.copy_(torch.tensor([1.0, 1, -1]))
        net[2].weight.copy_(torch.tensor([[1.0, 10, 100]])[..., None, None])
        net[2].bias.copy_(torch.tensor([0.5]))
    x = torch.tensor([1.0, 2]).view(1, 2, 1, 1)
    assert net(x).item() == 4 + 50 + 500 + 0.5  # hidden: 1+2+1, 2+2+1, 6-1
    cmap = trace(net, x)
    assert [(g.name, g.size, g.residual) for g in cmap.groups] == [("0", 3, False)]
    group = cmap.groups[0]
    assert group.consumers[0].classes.tolist() == [0, 1, 2]
    assert (group.producers[0].module, group.producers[0].parameter) == ("0", "weight")
    plan = Plan({"0": [0, 2]})
    assert slim(net, cmap, plan)(x).item() == 4 + 500 + 0.5
    assert mask(net, cmap, plan)(x).item() == 4 + 500 + 0.5
    assert cmap.macs(Plan({})) == 2 * 3 + 3
    assert cmap.macs(plan) == 2 * 2 + 2
    assert cmap.params(plan) == (4 + 2) + (2 + 1)


def test_channels_whose_pixels_become_one_are_cut_together(check_exact) -> None:
    net = there_and_back()
    cmap = trace(net, torch.randn(1, 3, 8, 8))
    assert {group.name: group.size for group in cmap.groups} == {"a": 6, "b": 8}
    slimmed = check_exact(net, (2, 3, 8, 8))
    assert slimmed.d.groups * 4 == slimmed.a.out_channels < 24
    weight, rows = net.a.weight, slimmed.a.weight
    stays = [n for n in range(24) if any(torch.equal(weight[n], row) for row in rows)]
    assert stays == [4 * n + k for n in sorted({n // 4 for n in stays}) for k in range(4)]
