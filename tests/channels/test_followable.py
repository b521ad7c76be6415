"""Models that are compiled, scripted, exported or not initialised yet."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.ao.nn import quantized
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import prepare_fx
from torch.testing._internal.two_tensor import TwoTensor
from torchvision.models import quantization

import prunebench
from prunebench.channels import Plan, require_as_planned, slim, trace, verify
from prunebench.errors import PruningError

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore:Please use quant_min"
)


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1))


def exported() -> torch.export.ExportedProgram:
    return torch.export.export(plain().eval(), (IMAGES,))


def wrapped(network: nn.Module) -> nn.Module:
    """Holds a weight in the way in which sharded and quantized ones are held."""
    weight = network.get_parameter("0.weight").detach()
    network.get_submodule("0").weight = nn.Parameter(TwoTensor(weight, weight))
    return network


def prepared() -> nn.Module:
    return prepare_fx(plain().eval(), get_default_qconfig_mapping("x86"), (IMAGES,))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: torch.jit.script(plain()), "a TorchScript model cannot be followed"),
        (lambda: torch.jit.trace(plain(), IMAGES), "a TorchScript model cannot be followed"),
        (lambda: exported().module(), "the model is an exported program"),
        (lambda: torch.export.unflatten(exported()), "is an exported program"),
        (exported, "must be a torch.nn.Module; got ExportedProgram"),
        (lambda: nn.Sequential(nn.ReLU(), nn.LazyConv2d(4, 1)), r"1 \(LazyConv2d\) has no weights"),
        (lambda: torch.compile(nn.Sequential(nn.LazyConv2d(4, 1))), r"0 \(LazyConv2d\) has no"),
        (lambda: wrapped(plain()), r"0 \(Conv2d\) holds a TwoTensor, .* prune first, and shard"),
        (lambda: prepared(), r"\(\w+\) is quantized, or prepared for it; prune first"),
        (lambda: nn.Sequential(quantized.ReLU6()), r"0 \(ReLU6\) is quantized, or prepared for"),
    ],
)
def test_what_cannot_be_followed_is_one_line(build, says: str) -> None:
    with pytest.raises(PruningError, match=says):
        prunebench.prune(build(), IMAGES)


def test_what_waits_to_be_quantized_is_pruned() -> None:
    network = quantization.resnet18(weights=None, quantize=False)
    small = prunebench.prune(network, torch.randn(1, 3, 32, 32), uniform=0.5)
    assert small.layer1[0].conv1.out_channels == 32


def test_a_compiled_network_is_pruned_as_what_it_was_made_from() -> None:
    network = plain().eval()
    compiled = torch.compile(network, backend=_never)
    cmap = trace(compiled, IMAGES)
    assert [group.name for group in cmap.groups] == ["0", "2"]
    plan = Plan({"0": [1, 2], "2": [0]})
    slimmed = slim(compiled, cmap, plan)
    assert type(slimmed) is nn.Sequential
    assert verify(compiled, slimmed, cmap, plan, IMAGES) < 1e-6


def test_compiled_parts_and_calls_run_as_python() -> None:
    network = plain().eval()
    network[2] = torch.compile(network[2], backend=_never)
    network.compile(backend=_never)
    small = prunebench.prune(network, IMAGES, uniform=0.5)
    assert small.state_dict()["2._orig_mod.weight"].shape == (4, 4, 1, 1)


def _never(*_) -> None:
    raise AssertionError("nothing is to be compiled")


@torch.jit.script
def halved(x: Tensor) -> Tensor:
    return x / 2


class Parts(nn.Module):
    """A scripted function behind one convolution, a scripted module behind another."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.d = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.script = torch.jit.script(nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()))
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.d(self.script(self.b(halved(self.a(x)))))))


def test_scripted_parts_are_frozen_and_said_to_be_so() -> None:
    network = Parts().eval()
    cmap = trace(network, IMAGES)
    assert [group.name for group in cmap.groups] == ["d"]
    assert {name: cmap.frozen[name] for name in ("a", "b", "script")} == dict.fromkeys(
        ("a", "b", "script"), "TorchScript cannot be followed"
    )
    assert cmap.macs(Plan({})) == 64 * (3 * 8 + 8 * 8 * 3 + 8 * 2)
    plan = Plan({"d": [0, 5]})
    assert verify(network, slim(network, cmap, plan), cmap, plan, IMAGES) < 1e-6
    assert torch.equal(halved(torch.tensor([2.0])), torch.tensor([1.0]))  # and called as before
    assert "__call__" not in vars(torch.jit.ScriptModule)


@pytest.mark.parametrize("cut_before", [False, True])
def test_parameters_of_copied_scripted_parts_are_counted(cut_before: bool) -> None:
    """Copies of TorchScript hold tensors that are no instances of nn.Parameter."""
    network = copy.deepcopy(Parts().eval())
    if cut_before:
        network = slim(network, trace(network, IMAGES), Plan({"d": range(6)}))
    cmap, plan = trace(network, IMAGES), Plan({"d": [0, 5]})
    assert cmap.params(Plan({})) == sum(p.numel() for p in network.parameters())
    small = slim(network, cmap, plan)
    assert cmap.params(plan) == sum(p.numel() for p in small.parameters())
    require_as_planned(network, small, cmap, plan)
