"""What surgery preserves, and what it does not touch."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models import ShuffleNetV2
from torchvision.models.resnet import BasicBlock, ResNet

from prunebench.channels import Plan, slim, trace, verify
from prunebench.errors import PruningError


def resnet(**more) -> nn.Module:
    """Half a ResNet-18."""
    return ResNet(BasicBlock, [1, 1, 1, 1], **more)


def shufflenet(**more) -> nn.Module:
    """A ShuffleNet V2 in small; halved, it needs gathers."""
    return ShuffleNetV2([4, 2, 2], [24, 16, 32, 64, 128], **more)


def halves(cmap) -> Plan:
    return Plan({g.name: range(0, g.size, 2) for g in cmap.groups})


@pytest.mark.parametrize("build", [resnet, shufflenet])
def test_the_input_is_untouched_and_flags_survive(build: Callable[..., nn.Module]) -> None:
    model = build().to(torch.bfloat16)
    model = model.to(memory_format=torch.channels_last)
    model.train()
    model.conv1.eval()
    for parameter in model.conv1.parameters():
        parameter.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    flags = {n: m.training for n, m in model.named_modules()}
    random_state = torch.get_rng_state()
    cmap = trace(model, torch.randn(2, 3, 32, 32, dtype=torch.bfloat16))
    torch.set_rng_state(random_state)
    slimmed = slim(model, cmap, halves(cmap))
    assert torch.equal(random_state, torch.get_rng_state())
    assert {n: m.training for n, m in model.named_modules()} == flags
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    old = dict(model.named_parameters())
    for key, parameter in slimmed.named_parameters():
        assert isinstance(parameter, nn.Parameter)
        assert parameter.requires_grad == old[key].requires_grad
        assert parameter.dtype == torch.bfloat16
        assert parameter.untyped_storage().nbytes() == parameter.nbytes  # no view of anything
        assert parameter.data_ptr() != old[key].data_ptr()
        if parameter.dim() == 4:
            assert parameter.is_contiguous(memory_format=torch.channels_last)
    modules = dict(slimmed.named_modules())
    for key, flag in flags.items():
        if key in modules:
            assert modules[key].training == flag


def test_tracing_does_not_draw_random_numbers_or_move_statistics() -> None:
    model = torchvision.models.efficientnet_b0(weights=None).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    example = torch.zeros(1, 3, 32, 32)
    trace(model, example)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert model.training


@pytest.mark.parametrize("build", [resnet, shufflenet])
def test_rebuild_from_the_plan_on_the_meta_device(build: Callable[..., nn.Module]) -> None:
    model = build().eval()
    example = torch.randn(2, 3, 32, 32)
    cmap = trace(model, example)
    plan = halves(cmap)
    slimmed = slim(model, cmap, plan)
    stored = io.BytesIO()
    torch.save(slimmed.state_dict(), stored)
    stored.seek(0)
    with torch.device("meta"):
        empty = build().eval()
    again = slim(empty, trace(empty, example), Plan.from_json(plan.to_json()))
    again.load_state_dict(torch.load(stored, weights_only=True), assign=True)
    with torch.no_grad():
        assert torch.equal(slimmed(example), again(example))
        assert torch.equal(slimmed(example), copy.deepcopy(slimmed)(example))
        assert torch.equal(slimmed(example), pickle.loads(pickle.dumps(slimmed))(example))


@pytest.mark.parametrize("build", [resnet, shufflenet])
def test_it_trains_and_exports(build: Callable[..., nn.Module]) -> None:
    model = build(num_classes=4)
    example = torch.randn(2, 3, 32, 32)
    cmap = trace(model, example)
    slimmed = slim(model, cmap, halves(cmap))
    slimmed.train()
    slimmed(example).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in slimmed.parameters())
    slimmed.eval()
    exported = torch.export.export(slimmed, (example,)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(example), slimmed(example))


def test_shared_parameters_stay_shared() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 2, 1)
    )
    model[3].weight = model[1].weight
    cmap = trace(model, torch.randn(1, 3, 4, 4))
    slimmed = slim(model, cmap, halves(cmap))
    assert slimmed[3].weight is slimmed[1].weight
    assert slimmed[1].weight.shape == (3, 3, 1, 1)


def test_slimming_twice_is_slimming_once() -> None:
    model = resnet().eval()
    example = torch.randn(2, 3, 32, 32)
    cmap = trace(model, example)
    first = halves(cmap)
    once = slim(model, cmap, first)
    then = halves(trace(once, example))
    twice = slim(once, trace(once, example), then)
    direct = slim(model, cmap, Plan.compose(first, then))
    with torch.no_grad():
        assert torch.equal(twice(example), direct(example))


class Drawn(nn.Module):
    """A random small network: each step adds one kind of structure."""

    def __init__(self, steps: list[str], width: int) -> None:
        super().__init__()
        self.steps = steps
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.layers = nn.ModuleList(self._layer(step, width) for step in steps)
        self.shared = nn.Conv2d(width, width, 3, padding=1)
        self.fc = nn.Linear(width * 4, 3)

    def _layer(self, step: str, w: int) -> nn.Module:
        wide = {"concat": 2 * w, "split": w // 2}.get(step, w)
        groups = {"grouped": 2, "depthwise": w}.get(step, 1)
        out = w // 2 if step in ("concat", "pad", "split") else w
        inner = nn.Conv2d(w // 2 if step == "split" else w, out, 3, padding=1, groups=groups)
        after = nn.Conv2d({"concat": w + out}.get(step, wide if step == "split" else w), w, 1)
        gate = nn.Linear(w, w)
        return nn.ModuleDict({"a": inner, "bn": nn.BatchNorm2d(out), "b": after, "gate": gate})

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        for step, layer in zip(self.steps, self.layers, strict=True):
            x = self._step(step, layer, x)
        return self.fc(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))

    def _step(self, step: str, m: nn.Module, x: Tensor) -> Tensor:
        if step == "shared":
            return torch.relu(self.shared(x))
        if step == "split":
            left, right = x.chunk(2, 1)
            return torch.relu(m["b"](right + m["bn"](m["a"](left))))
        y = torch.relu(m["bn"](m["a"](x)))
        if step == "residual":
            return torch.relu(x + m["b"](y))
        if step == "concat":
            return torch.relu(m["b"](torch.cat([y, x], 1)))
        if step == "pad":
            quarter = y.size(1) // 2
            short = nn.functional.pad(y, (0, 0, 0, 0, self.stem.out_channels // 4, 0))
            return torch.relu(x + nn.functional.pad(short, (0, 0, 0, 0, 0, quarter)))[
                :, : x.size(1)
            ]
        if step == "shuffle":
            n, c, h, w = y.shape
            return m["b"](y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))
        if step == "gate":
            return x * torch.sigmoid(m["gate"](y.mean((2, 3))))[:, :, None, None]
        return torch.relu(m["b"](y))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    steps=st.lists(
        st.sampled_from(
            ["residual", "concat", "split", "grouped", "depthwise", "shared", "shuffle", "gate"]
        ),
        min_size=1,
        max_size=4,
    ),
    width=st.sampled_from([4, 8]),
    seed=st.integers(0, 1000),
)
def test_drawn_networks(steps: list[str], width: int, seed: int) -> None:
    torch.manual_seed(seed)
    model = Drawn(steps, width).double().eval()
    example = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    cmap = trace(model, example)
    kept = {
        g.name: sorted(torch.randperm(g.size)[: max(1, g.size // 2)].tolist()) for g in cmap.groups
    }
    plan = Plan(kept)
    slimmed = slim(model, cmap, plan)
    assert cmap.groups
    assert verify(model, slimmed, cmap, plan, example) < 1e-9
    assert sum(p.numel() for p in slimmed.parameters()) == cmap.params(plan)


def test_a_layer_that_would_read_nothing_is_named() -> None:
    class Halves(nn.Module):
        """A convolution that reads the right halves of two others."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.cat([self.a(x)[:, 2:], self.b(x)[:, 2:]], 1))

    model, example = Halves().eval(), torch.randn(2, 3, 4, 4)
    cmap = trace(model, example)
    assert slim(model, cmap, Plan({"a": [0, 1], "b": [0, 2]}))(example).shape == (2, 2, 4, 4)
    with pytest.raises(PruningError, match="the plan leaves last no channel to read"):
        slim(model, cmap, Plan({"a": [0, 1], "b": [0, 1]}))
