"""The layers before a changed one are computed only once, without changing any result."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from prunebench.analysis.beginning import resumed, serves, shared
from tests.conftest import how_torch_computes

IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Three convolutions; what happens to the first one's output is left to those below."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

    def forward(self, x):
        x = self.between(self.first(x))
        return x + self.third(self.second(x).relu_())

    def between(self, x):
        return x.relu()


class WritesInTheBeginning(Net):
    def between(self, x):
        y = x.view(len(x), -1)
        y += 1
        x[:, 0] = 0
        return nn.functional.relu(x, inplace=True)


class Branches(Net):
    def between(self, x):
        return x.cos() if x.sum() > 0 or len(x) == 3 else x.sin()


class LooksAtShapes(Net):
    def between(self, x):
        rows = [row.reshape(row.size(0), *row.shape[1:]) for row in x]
        return torch.stack(rows, dim=0).to(x.dtype).expand(x.size())


class ChangesAList(Net):
    def between(self, x):
        sizes = torch.tensor([1, 1, 1]).tolist()
        sizes.append(0)
        parts = list(x.split(sizes, dim=1))
        largest = x.max(dim=1, keepdim=True)
        return torch.cat([*parts, largest.values][:3], dim=1)


class Normed(Net):
    def __init__(self):
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.second)


class WritesLater(Net):
    """The rest writes into what the beginning made, after having read it."""

    def forward(self, x):
        x = self.first(x).relu()
        y = self.second(x)
        return self.third(x.mul_(2)) + y


class WritesIntoAView(Net):
    def forward(self, x):
        x = self.first(x)
        view = x.view(len(x), 3, -1)
        y = self.second(x)
        view.add_(y.mean())
        return self.third(x) + y


class Iterates(Net):
    """A result is used up as it is looked at."""

    def between(self, x):
        return torch.stack(list(map(torch.relu, iter(x))))


class Unheard(Net):
    """A tensor that no function has made."""

    def between(self, x):
        return torch.from_numpy(x.numpy() * 2)


class LeavesOut(Net):
    """A tensor that nothing uses."""

    def forward(self, x):
        return self.third(self.first(x))


class Twice(Net):
    """A module is called before and after."""

    def forward(self, x):
        x = self.first(x)
        return self.first(self.second(x)) + x


class Hooked(Net):
    def __init__(self):
        super().__init__()
        self.first.register_forward_hook(lambda module, inputs, output: output + 1)


class UsedOutside(Net):
    """The first module's output depends on a tensor of the second, which is not called for it."""

    def __init__(self):
        super().__init__()
        self.first.other = [self.second]
        self.first.register_forward_pre_hook(_scaled)


def _scaled(module, inputs):
    return (inputs[0] * module.other[0].weight.sum(),)


class Around(nn.Module):
    """What is used outside lies in a module that is called."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.before, self.second = Reads(), nn.Conv2d(3, 3, 3, padding=1)
        self.before.other = [self.second]

    def forward(self, x):
        return self.second(self.before(x))


class Reads(nn.Module):
    def forward(self, x):
        return x * self.other[0].weight.sum()


#: how many of the convolutions are computed anew
ALL = {
    Net: 2, WritesInTheBeginning: 2, Branches: 2, LooksAtShapes: 2, ChangesAList: 2, Normed: 2,
    Iterates: 2, Unheard: 2, LeavesOut: 0, Twice: 3, Hooked: 3, UsedOutside: 3,
    WritesLater: 2, WritesIntoAView: 2,
}  # fmt: skip
#: whose outputs do not serve
WRITE = (WritesIntoAView, WritesInTheBeginning)


def run(network, inputs=IMAGES):
    with torch.no_grad():
        return network(inputs.clone())


def others(network):
    """Copies of `network` whose second layer differs."""
    for seed in range(3):
        other = copy.deepcopy(network)
        torch.manual_seed(seed)
        with torch.no_grad():
            for tensor in other.second.parameters():
                tensor.mul_(torch.randn_like(tensor))
        yield other


@pytest.mark.parametrize("kind", ALL)
def test_the_outputs_are_those_of_the_whole_forward(kind):
    network = kind().eval()
    outputs = shared(run, network, [*network.second.parameters()])
    if not serves(run, outputs, lambda: next(others(network))):
        assert kind in WRITE
        return
    assert kind not in WRITE
    for other in others(network):
        expected = run(other)
        assert torch.equal(resumed(run, other, outputs), expected)
        assert torch.equal(run(other), expected)


class Convolutions(TorchDispatchMode):
    """Counts what is computed."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten.convolution.default
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("kind", ALL)
def test_what_comes_before_is_not_computed_again(kind):
    network = kind().eval()
    outputs = shared(run, network, [*network.second.parameters()])
    with Convolutions() as convolutions:
        resumed(run, network, outputs)
    assert convolutions.count == ALL[kind]


def test_of_modules_within_each_other_the_outermost_is_kept():
    network = nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU()), nn.Conv2d(3, 3, 3)).eval()
    outputs = shared(run, network, [*network[1].parameters()])
    assert outputs.keys() == {"0"}
    assert torch.equal(outputs["0"], run(network[0]))


def test_what_reads_the_tensors_outside_of_their_module_is_found_out():
    network = Around().eval()
    outputs = shared(run, network, [*network.second.parameters()])
    assert outputs.keys() == {"before"}
    assert not serves(run, outputs, lambda: next(others(network)))


class Fails(Net):
    """A forward that breaks off within blocks that set what holds for the whole process."""

    def forward(self, x):
        x = self.first(x)
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            self.second(x)
            raise ValueError("broke off")


@pytest.mark.parametrize("grad", [True, False])
def test_a_forward_that_breaks_off_leaves_nothing_behind(grad):
    network = Fails().eval()
    with torch.set_grad_enabled(grad):
        before = how_torch_computes()
        for again in (
            lambda: shared(lambda net: net(IMAGES), network, [*network.second.parameters()]),
            lambda: resumed(lambda net: net(IMAGES), network, {"first": run(network.first)}),
        ):
            with pytest.raises(ValueError, match="broke off"):
                again()
            assert how_torch_computes() == before
    assert not any(module._forward_hooks for module in network.modules())
    assert not network.training
