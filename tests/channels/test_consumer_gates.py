"""Gates on what consumers read: masking there equals cutting the channel."""

import pytest
import torch
from torch import Tensor, nn

from prunebench.channels import Plan, slim, trace
from prunebench.channels.consumer_gates import ConsumerFactors
from prunebench.models import ModelSpec
from prunebench.models.mlp import Mlp
from prunebench.models.resnet import Resnet
from prunebench.models.vgg import Vgg16
from prunebench.options import option


class Mixed(nn.Module):
    """Concatenation, a grouped and a depthwise convolution, a residual, flattened positions."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3, padding=1)
        self.two = nn.Conv2d(3, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(10)
        self.grouped = nn.Conv2d(10, 8, 1, groups=2)
        self.wide = nn.Conv2d(8, 12, 1)
        self.dw = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.dwbn = nn.BatchNorm2d(12)
        self.narrow = nn.Conv2d(12, 8, 1)
        self.fc = nn.Linear(8 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(torch.cat([self.one(x), self.two(x)], 1)))
        x = torch.relu(self.grouped(x))
        y = torch.relu(self.wide(x))
        x = x + self.narrow(torch.relu(self.dwbn(self.dw(y))))
        return self.fc(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


NETS = {
    "mlp": (lambda: Mlp(widths=[12, 8]).build((3, 8, 8), 5), 8),
    "vgg16": (lambda: Vgg16(width=0.125).build((3, 16, 16), 5), 16),
    "resnet8-A": (lambda: Resnet(depth=8, shortcut="A", width=0.5).build((3, 16, 16), 5), 16),
    "resnet8-B": (lambda: Resnet(depth=8, shortcut="B", width=0.5).build((3, 16, 16), 5), 16),
    "mixed": (Mixed, 8),
    "mobilenet_v2": (lambda: option("model", "mobilenet_v2", ModelSpec).build((3, 16, 16), 5), 16),
}


def lively(name: str) -> tuple[nn.Module, Tensor]:
    """A network whose norms shift, so that a channel masked in the wrong place shows."""
    torch.manual_seed(3)
    build, size = NETS[name]
    network = build()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
    return network.eval(), torch.randn(6, 3, size, size)


def some(size: int, seed: int) -> list[int]:
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    return sorted(order[: max(1, size // 2)].tolist())


@pytest.mark.parametrize("name", NETS)
def test_masked_consumers_compute_what_the_slim_network_does(name):
    network, images = lively(name)
    cmap = trace(network, images[:1])
    plan = Plan({group.name: some(group.size, n) for n, group in enumerate(cmap.groups)})
    expected = slim(network, cmap, plan)(images)
    factors = ConsumerFactors(cmap.groups)
    for group, alive in zip(cmap.groups, factors.alive, strict=True):
        alive.zero_()[list(plan.kept[group.name])] = True
    factors.attach(network)
    assert factors.plan() == plan
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)
    factors.alive = [torch.ones_like(alive) for alive in factors.alive]
    factors.refresh()
    # per-image gates of 0 do the same, image by image
    kept = [a.clone().zero_() for a in factors.alive]
    for group, gate in zip(cmap.groups, kept, strict=True):
        gate[list(plan.kept[group.name])] = True
    whole = torch.arange(6)[:, None] % 2 == 0
    factors.gates = [(gate | whole).float() for gate in kept]
    mixed = network(images)
    factors.detach()
    torch.testing.assert_close(mixed[1::2], expected[1::2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed[::2], network(images)[::2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETS)
def test_gates_of_one_change_no_bit_of_outputs_gradients_and_statistics(name):
    def step(*, gated: bool) -> list[Tensor]:
        network, images = lively(name)
        network.train()
        factors = ConsumerFactors(trace(network, images[:1]).groups)
        if gated:
            factors.attach(network)
            sizes = [group.size for group in factors.groups]
            factors.gates = [torch.ones(6, size, requires_grad=True) for size in sizes]
        logits = network(images)
        logits.square().mean().backward()
        if gated:
            assert all(gate.grad.abs().sum() > 0 for gate in factors.gates)
        grads = [parameter.grad for parameter in network.parameters()]
        return [logits.detach(), *grads, *network.buffers()]

    for plain, gated in zip(step(gated=False), step(gated=True), strict=True):
        assert torch.equal(plain, gated)


def test_nothing_is_left_behind():
    network, images = lively("resnet8-A")
    before = network(images)
    factors = ConsumerFactors(trace(network, images[:1]).groups)
    factors.alive[0][0] = False
    factors.attach(network)
    assert not torch.equal(network(images), before)
    factors.detach()
    assert torch.equal(network(images), before)
    assert not any(module._forward_pre_hooks for module in network.modules())
