"""What networks compute before a layer is computed once, and nothing comes out differently."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from prunebench.analysis.beginning import shared

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


QUICK = (Net, WritesInTheBeginning, Branches, LooksAtShapes, ChangesAList, Normed)


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


SLOW = (WritesLater, WritesIntoAView)
EITHER = (Iterates, Unheard, LeavesOut)


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


@pytest.mark.parametrize("kind", [*QUICK, *SLOW, *EITHER])
def test_the_outputs_are_those_of_the_whole_forward(kind):
    network = kind().eval()
    quick = shared(run, network, network.second.parameters())
    for other in others(network):
        for _ in range(2):
            assert torch.equal(quick(other), run(other))
    assert (quick is run) == (kind in SLOW) or kind in EITHER


class Convolutions(TorchDispatchMode):
    """Counts what is computed."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten.convolution.default
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("kind", QUICK)
def test_what_comes_before_is_not_computed_again(kind):
    network = kind().eval()
    quick = shared(run, network, network.second.parameters())
    with Convolutions() as convolutions:
        quick(network)
    assert convolutions.count == 2  # of three


def test_nothing_is_kept_that_nobody_needs():
    network = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(5))).eval()
    quick = shared(run, network, network[4].parameters())
    _, answers = quick.args
    inputs, kept = [part for _, part in answers if part is not None and part.numel()]
    assert torch.equal(inputs, IMAGES)  # which whoever calls the network holds
    assert torch.equal(kept, run(network[:4]))


def test_a_network_that_begins_otherwise_is_run_as_a_whole():
    network = Net().eval()
    quick = shared(run, network, network.second.parameters())
    other = copy.deepcopy(network)
    other.first.register_forward_hook(lambda module, inputs, output: output * 2)
    assert torch.equal(quick(other), run(other))
    assert not torch.equal(run(other), run(network))


def test_grad_mode_is_that_of_the_network():
    network = Net().eval()
    quick = shared(run, network, network.second.parameters())
    assert not quick(network).requires_grad


def test_an_error_is_the_forwards_own():
    def fails(network):
        raise ValueError("no")

    network = Net().eval()
    assert shared(fails, network, network.second.parameters()) is fails
