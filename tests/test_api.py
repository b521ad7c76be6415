"""`prunebench.prune`: a model of one's own, in three lines."""

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

import prunebench
from prunebench.errors import ConfigError, PruningError
from prunebench.measure import macs, params
from prunebench.models import ModelSpec
from prunebench.options import option

IMAGE = (1, 3, 32, 32)


def own() -> nn.Module:
    """A network as somebody would write it down in a minute."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 28 * 28, 5),
    )  # fmt: skip


def zoo(name: str, **changes: object) -> nn.Module:
    spec = option("model", name, ModelSpec, **changes)
    return spec.build(IMAGE[1:], 10)


NETS = {
    "own": own,
    "resnet20": lambda: zoo("resnet20"),
    "vgg16": lambda: zoo("vgg16", width=0.25),
    "shufflenet_v2": lambda: zoo("shufflenet_v2", width=0.5),
    "torchvision mobilenet_v2": lambda: models.mobilenet_v2(num_classes=10),
    "torchvision resnet18": lambda: models.resnet18(num_classes=10),
}


def outputs(network: nn.Module) -> Tensor:
    return network.eval()(torch.zeros(IMAGE))


@pytest.mark.parametrize("name", NETS)
def test_without_a_budget_half_of_every_groups_channels_stay(name: str) -> None:
    torch.manual_seed(0)
    model, example = NETS[name](), torch.randn(IMAGE)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    small = prunebench.prune(model, example)
    assert small.training
    assert params(small) < params(model)
    assert macs(small, example) < 0.9 * macs(model, example)
    assert outputs(small).shape == outputs(model).shape
    after = model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    widths = [module.out_channels for module in small.modules() if isinstance(module, nn.Conv2d)]
    dense = [module.out_channels for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert any(2 * now == then for now, then in zip(widths, dense, strict=True))


def test_a_frozen_batch_norm_is_as_frozen_in_the_small_network() -> None:
    model = own()
    model[1].eval()
    small = prunebench.prune(model, torch.randn(IMAGE))
    for network in (model, small):
        assert network.training and network[0].training
        assert not network[1].training


def test_a_criterion_that_decides_needs_no_budget() -> None:
    torch.manual_seed(0)
    images = torch.randn(8, *IMAGE[1:]), torch.zeros(8, dtype=torch.int64)
    decided = prunebench.prune(own(), torch.randn(IMAGE), criterion="foad", images=images)
    assert isinstance(decided[0], nn.Conv2d)
    assert decided[0].out_channels != 8  # half would be 8: these are FOAD's own t and s


@pytest.mark.parametrize("budget", [{"macs": 0.5}, {"params": 0.5}, {"uniform": 0.25, "floor": 5}])
def test_budgets(budget: dict[str, float]) -> None:
    model, example = own(), torch.randn(IMAGE)
    small = prunebench.prune(model, example, **budget)
    if "macs" in budget:
        assert macs(small, example) <= 0.5 * macs(model, example)
    elif "params" in budget:
        assert params(small) <= 0.5 * params(model)
    else:
        assert isinstance(small[0], nn.Conv2d)
        assert small[0].out_channels == 5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"macs": 0.5, "params": 0.5}, "give one budget, not macs and params"),
        ({"criterion": "l11"}, "'criterion=l11' is not known.*did you mean 'l1'"),
        ({"flor": 3}, "'budget.flor' is not known.*did you mean 'floor'"),
        ({"criterion": "taylor"}, r"looks at \d+ training images; give images="),
        ({"macs": 0.0001}, "the least that can be reached is"),
        ({"criterion": "cac"}, "prunes while the network is trained"),
    ],
)
def test_mistakes_are_one_sentence(arguments: dict[str, object], says: str) -> None:
    with pytest.raises((ConfigError, PruningError), match=says):
        prunebench.prune(own(), torch.randn(IMAGE), **arguments)  # type: ignore[arg-type]


class Residual(nn.Module):
    """All of its channels are added up."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.a(x) + self.b(x)))


def test_residual_streams_are_named_with_what_prunes_them() -> None:
    with pytest.raises(PruningError, match=r'lie on residual streams.*scope="all"'):
        prunebench.prune(Residual(), torch.randn(IMAGE))
    assert prunebench.prune(Residual(), torch.randn(IMAGE), scope="all").a.out_channels == 4


def test_where_nothing_or_too_little_can_be_cut_the_reasons_are_told() -> None:
    with pytest.raises(PruningError, match="no channel .* can be cut; 0: the output of the netw"):
        prunebench.prune(nn.Sequential(nn.Conv2d(3, 8, 1)), torch.randn(IMAGE))
    with pytest.raises(PruningError, match="there is no convolution and no linear layer"):
        prunebench.prune(nn.Sequential(nn.ReLU()), torch.randn(IMAGE))
    with pytest.raises(PruningError, match="what cannot be cut: 6: the output of the network"):
        prunebench.prune(own(), torch.randn(IMAGE), macs=0.0001)
