"""`prunebench.prune` on the user's own models."""

import copy
import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision import models

import prunebench
from prunebench.budgets.uniform import Uniform
from prunebench.channels import Plan, slim, trace
from prunebench.criteria.l1 import L1
from prunebench.criteria.random import Random
from prunebench.criteria.taylor import Taylor
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


def test_numbers_may_be_numpys() -> None:
    own_ones = {"steps": 2, "seed": 3, "floor": 2, "uniform": 0.75}
    numpys = {
        "steps": np.int64(2),
        "seed": np.int32(3),
        "floor": np.uint8(2),
        "uniform": np.float64(0.75),
    }
    plans = [
        prunebench.prune(own(), torch.randn(IMAGE), criterion="random", **given).plan  # type: ignore[arg-type]
        for given in (own_ones, numpys)
    ]
    assert plans[0] == plans[1]


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
    same = prunebench.prune(model, example, budget=next(iter(budget)), **budget)
    assert same.plan == small.plan
    if "macs" in budget:
        assert macs(small, example) <= 0.5 * macs(model, example)
    elif "params" in budget:
        assert params(small) <= 0.5 * params(model)
    else:
        assert isinstance(small[0], nn.Conv2d)
        assert small[0].out_channels == 5


MISTAKES: list[tuple[dict[str, object], str]] = [
    ({"macs": 0.5, "params": 0.5}, "give one budget, not macs and params"),
    ({"criterion": "l11"}, "^criterion 'l11' is not known; criteria: apoz, .*did you mean 'l1'"),
    ({"criterion": "cac"}, "prunes during training.*; criteria: apoz,"),
    ({"criterion": L1}, r"must be an object, not a class: L1\(\)"),
    ({"criterion": 3}, r"criterion must be a Criterion or a name \(apoz, .*got '3'"),
    ({"criterion": "taylor"}, r"taylor needs \d+ training images; give images="),
    ({"criterion": "taylor", "images": torch.ones(2, 3, 32, 32)}, r'set criterion=Taylor\(form="w'),
    ({"budget": 0.5}, "budget=0.5 does not say what it limits; write macs=0.5"),
    ({"budget": "flops"}, "budget 'flops' is not known; budgets: global_ranking, latency, macs,"),
    ({"budget": "own"}, 'budget="own" takes .* criterion="l1" makes none; choose budget="uniform"'),
    ({"budget": Uniform(keep=0.5), "floor": 3}, "has its own fields; set floor on the object"),
    ({"repair": "leastsquares"}, "repairs: bn_.*did you mean 'least_squares'"),
    ({"flor": 3}, "^'flor' is not known.*did you mean 'floor'"),
    ({"step": 3}, "^'step' is not known.*did you mean 'steps'"),
    ({"macs": 0.0001}, "^macs=0.0001 asks for .* the least that can be reached is"),
    ({"macs": "half"}, "^macs must be a number; got 'half'"),
    ({"scope": "outer"}, "scope must be one of inner, all; got 'outer'"),
    ({"only": ["layer*"]}, r"only: 'layer\*' matches no group; groups: 0, 3"),
    ({"exclude": "layer*"}, r"^exclude: 'layer\*' matches no group; groups: 0, 3"),
    ({"steps": 0}, "steps must be 1, 2, 3"),
    ({"steps": True}, "steps must be 1, 2, 3"),
    ({"seed": "a"}, "seed must be 0, 1, 2 ...; got 'a'"),
    ({"seed": 1.5}, "seed must be 0, 1, 2 ...; got 1.5"),
    ({"seed": -1}, "seed must be 0, 1, 2 ...; got -1"),
    ({"budget": np.float32(0.5)}, "budget=0.5 does not say what it limits; write macs=0.5"),
    ({"between": print}, "between= is called between two steps"),
    ({"steps": 2, "between": lambda network: nn.Identity()}, "returned another network"),
    ({"steps": 2, "criterion": "foad", "images": torch.ones(2, 3, 32, 32)}, "choose steps=1, or a"),
    ({"budget": "params", "macs": 0.5}, r'^macs= is another budget beside budget="params"'),
    ({"macs": 0.5, "keep": 0.7}, "^macs= and keep= say the same; give one"),
    ({"loss": 3}, "^loss must be a function; got 3"),
    ({"forward": "x"}, "^forward must be a function; got 'x'"),
    ({"steps": 2, "between": 3}, "^between must be a function; got 3"),
    ({"exclude": 3}, "^exclude must be a name pattern, or a list of them; got 3"),
    ({"only": ["0", 3]}, r"^only must be a name pattern, or a list of them; got \['0', 3\]"),
    ({"optimizer": 3}, r"optimizer must be a torch.optim.Optimizer .*got int"),
]


@pytest.mark.parametrize(("arguments", "says"), MISTAKES, ids=[says for _, says in MISTAKES])
def test_mistakes_are_one_sentence_of_python(arguments: dict[str, object], says: str) -> None:
    with pytest.raises((ConfigError, PruningError), match=says) as told:
        prunebench.prune(own(), torch.randn(IMAGE), **arguments)  # type: ignore[arg-type]
    assert not re.search(r"(budget|criterion|repair|schedule)\.|schedule=|\n", str(told.value))


def test_what_is_pruned_in_inference_mode_can_be_trained() -> None:
    outside, example = own(), torch.randn(IMAGE)
    images = example, torch.zeros(len(example), dtype=torch.int64)
    taylor = Taylor(form="weight", num_samples=1)
    with torch.inference_mode():
        some = prunebench.prune(outside, example, macs=0.5, images=images, criterion=taylor)
        others = prunebench.prune(own(), example, macs=0.5)
    for small in (some, others):
        small(example).sum().backward()
        assert all(weight.grad is not None for weight in small.parameters())


def test_weights_that_are_no_numbers_are_blamed_first() -> None:
    model = own()
    with torch.no_grad():
        model[3].weight[0, 0] = torch.nan
    with pytest.raises(PruningError, match="3.weight has values that are not finite"):
        prunebench.prune(model, torch.randn(IMAGE))


def test_a_network_without_numbers_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)).to("meta")
    with pytest.raises(PruningError, match="0.weight is on the meta device and has no values"):
        prunebench.prune(network, torch.zeros(1, 3, 8, 8, device="meta"), macs=0.5)


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
    with pytest.raises(PruningError, match="no channel .* can be cut; 0: the output of the netw"):
        prunebench.prune(nn.Sequential(nn.Conv2d(3, 8, 1)), torch.randn(IMAGE), exclude=["0"])
    with pytest.raises(PruningError, match="there is no convolution and no linear layer"):
        prunebench.prune(nn.Sequential(nn.ReLU()), torch.randn(IMAGE))
    with pytest.raises(PruningError, match="what cannot be cut: 6: the output of the network"):
        prunebench.prune(own(), torch.randn(IMAGE), macs=0.0001)


def test_the_result_is_the_slim_network_with_plan_and_report() -> None:
    model, example = own(), torch.randn(IMAGE)
    small = prunebench.prune(model, example, macs=0.5)
    assert type(small) is type(model)
    report, plan = small.report, small.plan
    assert (report.params_before, report.params_after) == (params(model), params(small))
    assert (report.macs_before, report.macs_after) == (macs(model, example), macs(small, example))
    assert report.channels_before == {"0": 16, "3": 8}
    assert report.channels_after == {name: len(kept) for name, kept in plan.kept.items()}
    assert report.whole == {"6": "the output of the network"}
    assert 0 <= report.surgery_error <= 1e-5
    assert report.notes == []
    by_hand = slim(model, trace(model, example), plan)
    assert torch.equal(outputs(by_hand), outputs(small))
    text = str(report)
    assert f"{report.macs_before:,} -> {report.macs_after:,}" in text
    assert "6: left whole, the output of the network" in text


def test_what_is_left_whole_is_told_with_its_reason() -> None:
    model = zoo("resnet20", width=0.25)
    small = prunebench.prune(
        model, torch.randn(IMAGE), only="layer[12].*", exclude=["layer1.*"], uniform=0.5
    )
    report = small.report
    dense = report.channels_before
    cut = {name for name, left in report.channels_after.items() if left < dense[name]}
    assert cut == {"layer2.0.conv1", "layer2.1.conv1", "layer2.2.conv1"}
    assert report.whole["layer3.0.conv1"] == "it is left out by only= or exclude="
    assert report.whole["conv1"] == "it is left out by only= or exclude="
    inner = prunebench.prune(model, torch.randn(IMAGE), uniform=0.5).report
    assert inner.whole["conv1"] == 'it lies on a residual stream, which scope="all" prunes, too'
    assert "layer3.0.conv1" not in inner.whole


def test_nothing_cut_and_fewer_images_than_asked_for_are_noted() -> None:
    small = prunebench.prune(
        own(), torch.randn(IMAGE), criterion="apoz", images=torch.randn(3, *IMAGE[1:]), uniform=1.0
    )
    assert small.report.notes == [
        "512 images were asked for; there are 3",
        "no channel was cut: criterion and budget keep them all",
    ]


def test_names_and_objects_are_the_same() -> None:
    model, example = own(), torch.randn(IMAGE)
    named = prunebench.prune(
        model, example, criterion="random", budget="uniform", keep=0.25, seed=3
    )
    made = prunebench.prune(model, example, criterion=Random(), budget=Uniform(keep=0.25), seed=3)
    assert named.plan == made.plan
    assert len(named.plan.kept["0"]) == 4
    other = prunebench.prune(model, example, criterion=Random(), uniform=0.25, seed=4)
    assert other.plan != made.plan


def test_deep_copies_keep_plan_and_report_whatever_was_made_of_the_network() -> None:
    class Swap(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return self.b(torch.cat([x[:, 4:], x[:, :4]], 1))

    for model in (own(), Swap()):
        small = prunebench.prune(model, torch.randn(IMAGE))
        copied = copy.deepcopy(small)
        assert (copied.plan, copied.report) == (small.plan, small.report)


def test_attributes_of_the_networks_own_are_not_overwritten() -> None:
    model = own()
    model.report = "mine"  # type: ignore[assignment]
    with pytest.raises(PruningError, match="has an attribute 'report' of its own"):
        prunebench.prune(model, torch.randn(IMAGE))


def test_each_step_ranks_what_the_last_one_left_and_training_made_of_it() -> None:
    torch.manual_seed(0)
    model, example, seen = own(), torch.randn(IMAGE), list[int]()
    model[1].eval()

    def favour_the_last(network: nn.Sequential) -> None:
        assert network.training and not network[1].training
        seen.append(network[0].out_channels)
        with torch.no_grad():
            network[0].weight[-1] += 100

    small = prunebench.prune(model, example, uniform=0.25, steps=3, between=favour_the_last)
    assert seen == [12, 8]
    assert (small[0].out_channels, small[3].out_channels) == (4, 2)
    assert not small[1].training
    assert len(small.report.steps) == 3
    trained = small[0].weight > 50
    assert trained.any()
    kept = list(small.plan.kept["0"])
    untrained = model[0].weight[kept]  # the plan is in the numbering of the dense network
    assert torch.equal(small[0].weight[~trained], untrained[~trained])


def test_what_was_pruned_before_is_pruned_again() -> None:
    example = torch.randn(IMAGE)
    once = prunebench.prune(own(), example, uniform=0.5)
    twice = prunebench.prune(once, example, uniform=0.5)
    assert twice.report.params_before == once.report.params_after
    assert len(twice.plan.kept["0"]) == 4
    assert isinstance(once.plan, Plan) and len(once.plan.kept["0"]) == 8


def test_what_the_criterion_has_no_score_for_stays_whole_with_the_reason():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3),
    )  # fmt: skip
    model(torch.zeros(1, 3, 12, 12))
    criterion = prunebench.criteria.BnProbability(linear="keep")
    slim = prunebench.prune(model, torch.zeros(1, 3, 12, 12), criterion=criterion, uniform=0.5)
    assert slim.report.channels_after["3"] == 8
    assert slim.report.channels_after["0"] == slim.report.channels_after["5"] == 4
    assert "3" in slim.report.whole


def test_options_are_made_by_the_names_of_the_command():
    from prunebench.api import option

    criterion = option("criterion", "taylor", prunebench.criteria.Taylor, form="weight")
    assert criterion.form == "weight"
