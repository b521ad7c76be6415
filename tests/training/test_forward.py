"""The forward pass of a step gives the same bits as the network's own under autocast."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import spectral_norm
from torch.nn.utils.parametrizations import weight_norm
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision import models

from prunebench.training.forward import Forward


class Counting(nn.BatchNorm2d):
    """Needs its counter."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        return x * self.num_batches_tracked


class Net(nn.Module):
    """Layers frozen, not used, used twice, or with a computed weight; norms of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.twice, self.mean = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8, momentum=None)
        self.frozen, self.still = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.frozen.requires_grad_(False)
        self.computed, self.bare = weight_norm(nn.Conv2d(8, 8, 1)), nn.BatchNorm2d(8, affine=False)
        self.hooked = spectral_norm(nn.Conv2d(8, 8, 1))  # has a `weight_orig`
        self.counting, self.other = Counting(8), nn.Conv2d(8, 8, 1)
        self.other.forward = self.standardised
        self.unused, self.uncounted = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.uncounted.track_running_stats = False
        self.uncounted.running_mean = self.uncounted.running_var = None
        self.uncounted.num_batches_tracked = None
        self.last = nn.Linear(8, 4)

    def standardised(self, x: Tensor) -> Tensor:
        weight = self.other.weight
        return nn.functional.conv2d(x, (weight - weight.mean()) / weight.std())

    def forward(self, x: Tensor) -> Tensor:
        x = self.counting(self.other(self.norm(self.first(x)).relu()))
        skip, x = x, self.mean(self.twice(self.twice(x)))
        x += skip  # in place, as a number is added to what counts the steps of a norm
        x = x.add_(1).add_(other=skip).relu()
        x = self.bare(self.computed(self.hooked(self.still(self.frozen(x))))).relu()
        return self.last(nn.functional.dropout(self.uncounted(x), 0.2).mean((2, 3)))


def built() -> Net:
    torch.manual_seed(0)
    net = Net().to(memory_format=torch.channels_last).train()
    net.still.eval()
    return net


@pytest.mark.parametrize("half", [None, torch.bfloat16, torch.float16])
def test_it_computes_what_the_network_does(half: torch.dtype | None) -> None:
    plain, ours = built(), built()
    forward = Forward(ours, half)
    images = torch.randn(4, 3, 6, 6).contiguous(memory_format=torch.channels_last)
    found = []
    for net, call in ((plain, plain), (ours, forward)):
        for step in range(2):  # gradients add up
            torch.manual_seed(step)
            with torch.autocast("cpu", half, enabled=half is not None):
                logits = call(images + step)
            logits.float().square().sum().backward()
        found.append((logits, net.state_dict(), [p.grad for p in net.parameters()]))
    (logits, state, grads), (own, own_state, own_grads) = found
    assert own.dtype == logits.dtype and torch.equal(own, logits)
    assert own_state.keys() == state.keys()
    assert all(torch.equal(own_state[name], value) for name, value in state.items())
    assert int(own_state["norm.num_batches_tracked"]) == 2
    assert int(own_state["still.num_batches_tracked"]) == 0
    for grad, own_grad in zip(grads, own_grads, strict=True):
        assert (grad is None) == (own_grad is None)
        if grad is not None and own_grad is not None:
            assert own_grad.dtype == torch.float32 and own_grad.stride() == grad.stride()
            assert torch.equal(own_grad, grad)
    assert plain.unused.weight.grad is None and plain.frozen.weight.grad is None


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v3_small"])
def test_networks_of_others_compute_what_they_do(name: str) -> None:
    made: list[dict[str, Any]] = []
    for together in (False, True):
        torch.manual_seed(0)
        net = models.get_model(name, weights=None, num_classes=4).train()
        call = Forward(net, torch.bfloat16) if together else net
        for step in range(2):
            torch.manual_seed(step)
            with torch.autocast("cpu", torch.bfloat16):
                logits = call(torch.randn(2, 3, 33, 33))
            logits.float().square().sum().backward()
        grads = {f"{name}.grad": p.grad for name, p in net.named_parameters()}
        made.append({"logits": logits} | net.state_dict() | grads)
    for name, value in made[0].items():
        assert torch.equal(made[1][name], value), name


class Own(nn.Module):
    """Reads parameters in its own ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first, self.norm, self.unused = (
            nn.Conv2d(3, 8, 1),
            nn.BatchNorm2d(8),
            nn.BatchNorm2d(8),
        )
        self.second, self.last = nn.Conv2d(8, 8, 1), nn.Linear(8, 4)
        if how == "two names":
            self.second.weight = nn.Parameter(self.first.weight.detach()[:, :1].repeat(1, 8, 1, 1))
            self.third = nn.Conv2d(8, 8, 1)
            self.third.weight = self.second.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu()
        x = self.second(self.third(x) if self.how == "two names" else x)
        x = self.norm(x) if self.how == "norm twice" else x
        x = x * float(self.norm.num_batches_tracked) if self.how == "counter" else x
        x = x.mean((2, 3))
        if self.how == "own weight":
            return functional.linear(
                functional.normalize(x), functional.normalize(self.last.weight)
            )
        with torch.autocast("cpu", enabled=self.how != "float32"):
            return self.last(x.float())


@pytest.mark.parametrize(
    "how", ["norm twice", "norm unused", "counter", "own weight", "float32", "two names"]
)
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_what_more_than_layers_read_is_left_alone(how: str, half: torch.dtype) -> None:
    found = []
    for together in (False, True):
        torch.manual_seed(0)
        net = Own(how)
        call = Forward(net, half) if together else net
        for step in range(3):
            with torch.autocast("cpu", half):
                logits = call(torch.full((2, 3, 4, 4), step + 1.0) + torch.randn(2, 3, 4, 4))
            logits.float().square().sum().backward()
        grads = {f"{name}.grad": p.grad for name, p in net.named_parameters()}
        found.append({"logits": logits} | net.state_dict() | grads)
    for name, value in found[0].items():
        ours = found[1][name]
        assert ours is value is None or torch.equal(ours, value), name


@pytest.mark.parametrize("half", [None, torch.bfloat16])
def test_scripted_networks_are_called_as_they_are(half: torch.dtype | None) -> None:
    net = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train())
    images = torch.randn(2, 3, 4, 4)
    call = Forward(net, half)
    with torch.autocast("cpu", half, enabled=half is not None):
        assert all(torch.equal(call(images), net(images)) for _ in range(2))
    assert int(net.state_dict()["1.num_batches_tracked"]) == 4


class Counted(TorchDispatchMode):
    """Counts what is asked of a device; memory is not."""

    asked = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.asked += "empty" not in str(func)
        return func(*args, **kwargs or {})


def test_fewer_operations_are_asked_for() -> None:
    net = nn.Sequential(*(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)) for _ in range(5)))
    counts = []
    for call in (net, Forward(net, torch.bfloat16)):
        with torch.autocast("cpu", torch.bfloat16):
            call(torch.ones(2, 3, 4, 4))  # the first call is the network's own
        net.zero_grad()
        with Counted() as counted, torch.autocast("cpu", torch.bfloat16):
            call(torch.ones(2, 3, 4, 4)).sum().backward()
        counts.append(counted.asked)
    # five kernels and biases by one each way, and five counters by one
    assert counts[0] - counts[1] == 2 * (5 + 5 - 1) + 5 - 1


def test_norms_keep_their_counters_where_a_forward_fails() -> None:
    net = built()
    before, call = net.norm.num_batches_tracked, Forward(net, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        call(torch.ones(4, 3, 6, 6))
    assert net.norm in call.norms and "first.weight" in call.exchanged
    with pytest.raises(RuntimeError):
        call(torch.ones(4, 5, 6, 6))
    assert net.norm.num_batches_tracked is before and int(before) == 1
    assert type(net.first.weight) is nn.Parameter
