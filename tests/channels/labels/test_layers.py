"""Common layers are followed by the function they call, but only where that is all they do."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from prunebench.channels import trace
from prunebench.channels.labels import labeller
from prunebench.channels.labels.layers import function_call

LAYERS = [
    nn.Conv2d(4, 6, 3),
    nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2, bias=False),
    nn.Conv2d(4, 6, 3, padding="same", dilation=2),
    nn.BatchNorm2d(4),
    nn.BatchNorm2d(4, affine=False, eps=0.1),
    nn.ReLU(),
    nn.ReLU(inplace=True),
    nn.ReLU6(),
]


@pytest.fixture
def x() -> Tensor:
    return 8 * torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_the_function_computes_what_the_layer_does(layer: nn.Module, x: Tensor) -> None:
    layer.eval()
    if isinstance(layer, nn.BatchNorm2d):
        layer.running_mean.uniform_()
        layer.running_var.uniform_(0.5, 2)
    called = function_call(layer, (x.clone(),), {})
    assert called is not None
    function, args, kwargs = called
    assert torch.equal(function(*args, **kwargs), layer(x))


class Wrapped(nn.Conv2d):
    """A class of someone's own."""


def doubled(layer: nn.Conv2d) -> None:
    layer.forward = lambda x: 2 * nn.Conv2d.forward(layer, x)


def padded(layer: nn.Conv2d) -> None:
    forward = layer._conv_forward
    layer._conv_forward = lambda x, *rest: forward(nn.functional.pad(x, (1, 1)), *rest)


SPECIAL = {
    "training": (nn.BatchNorm2d(4), nn.Module.train),
    "a forward of its own": (nn.Conv2d(4, 4, 3), doubled),
    "a convolution of its own": (nn.Conv2d(4, 4, 3), padded),
    "a hook": (nn.ReLU(), lambda layer: layer.register_forward_hook(lambda *_: None)),
    "a hook before": (nn.ReLU6(), lambda layer: layer.register_forward_pre_hook(lambda *_: None)),
    "a hook on gradients": (
        nn.ReLU(),
        lambda layer: layer.register_full_backward_hook(lambda *_: None),
    ),
    "another padding": (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), bool),
    "no statistics": (nn.BatchNorm2d(4, track_running_stats=False), bool),
    "a weight that is computed": (nn.Conv2d(4, 4, 3), nn.utils.parametrizations.weight_norm),
    "another class": (Wrapped(4, 4, 3), bool),
}


@pytest.mark.parametrize("why", SPECIAL)
def test_layers_that_do_more_are_called(why: str, x: Tensor) -> None:
    layer, change = SPECIAL[why]
    change(layer.eval())
    assert function_call(layer, (x,), {}) is None


def test_unusual_calls_are_left_to_the_layer(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    relu, norm = nn.ReLU().eval(), nn.BatchNorm2d(4).eval()
    assert function_call(relu, (), {"input": x}) is None
    assert function_call(norm, (x[0],), {}) is None  # it raises an error
    with nn.modules.module.register_module_forward_hook(lambda *_: None):
        assert function_call(relu, (x,), {}) is None
    assert function_call(relu, (x,), {}) is not None
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: x)
    assert function_call(relu, (x,), {}) is None


def test_maps_are_the_same_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torchvision.models.mobilenet_v2(weights=None, width_mult=0.35).eval()
    example = torch.randn(1, 3, 32, 32)
    direct = trace(model, example)
    monkeypatch.setattr(labeller, "function_call", lambda *_: None)
    called = trace(model, example)
    assert repr(direct.groups) == repr(called.groups)
    assert (direct.class_of == called.class_of).all()
    assert str(direct.tape.steps) == str(called.tape.steps)
    assert [str(call) for call in direct.tape.calls] == [str(call) for call in called.tape.calls]
