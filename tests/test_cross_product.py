"""Which options go together, and the line that refuses the rest.

The properties that a criterion declares, with the rules below, must predict exactly what the
program refuses.
"""

from collections import OrderedDict
from dataclasses import fields, replace
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from prunebench.budgets import Budget
from prunebench.budgets.latency import Latency
from prunebench.budgets.layer_times import Grid, Layer, LayerTimes
from prunebench.channels import Plan, slim, trace
from prunebench.config.combinations import check_combination
from prunebench.contracts import Assignment, Moment
from prunebench.criteria import Criterion, Evidence
from prunebench.errors import ConfigError, PruningError
from prunebench.models import ModelSpec, ghostnet, mobilenet
from prunebench.options import option
from prunebench.options.files import conf_dir
from prunebench.repairs import Repair
from prunebench.run.step import Method, Sample, cut, cut_as, dense_counts
from prunebench.run.step import evidence as looked_at
from prunebench.schedules import Schedule
from prunebench.schedules.oneshot import OneShot

#: what makes a criterion quick that has such a key
QUICK = {"num_samples": 4, "batch": 4, "rows_per_channel": 1, "n_min": 1}
CRITERIA = sorted(path.stem for path in (conf_dir() / "criterion").glob("*.yaml"))


@cache
def criterion_of(name):
    shipped = option("criterion", name, Criterion)
    keys = {field.name for field in fields(shipped)}
    return option("criterion", name, Criterion, **{k: QUICK[k] for k in keys & QUICK.keys()})


WATCHES_TRAINING = {n for n in CRITERIA if criterion_of(n).watches}
DECIDES = {name for name in CRITERIA if criterion_of(name).decides}
NOT_COMPARABLE = {name for name in CRITERIA if not criterion_of(name).comparable}
WEIGHTS_ONLY = {n for n in CRITERIA if not criterion_of(n).images_needed} - WATCHES_TRAINING

BUDGETS = {
    "own": {},
    "uniform": {},
    "per_layer": {"keep": {"*": 0.5}},
    "global_ranking": {},
    "macs": {},
    "macs-global": {"allocation": "global"},
    "params": {},
    "params-global": {"allocation": "global"},
    "latency": {"divisor": 1},
    "latency-global": {"divisor": 1, "allocation": "global"},
    "macs_params": {},
    "macs_params-global": {"allocation": "global"},
}
COMPARES = {name for name in BUDGETS if name.endswith("global")} | {"global_ranking"}
NO_LIMIT = {"own", "per_layer"}

SCHEDULES = {
    "oneshot": {},
    "layerwise": {"epochs": 0},
    "iterative": {"rounds": 2, "epochs": 0},
    "during_training": {},
    "from_scratch": {},
    "soft": {},
    "redraw": {},
    "never": {},
}

MODELS = {
    "lenet5": ({}, (1, 28, 28)),
    "lenet_300_100": ({"widths": [20, 10]}, (1, 28, 28)),
    "mlp_500_300": ({"widths": [20, 12]}, (1, 28, 28)),
    "mlp_512_512": ({"widths": [16, 16]}, (1, 28, 28)),
    "vgg16": ({"width": 0.05}, (3, 32, 32)),
    "vgg16_gap": ({"width": 0.05}, (3, 32, 32)),
    "vgg19": ({"width": 0.05}, (3, 32, 32)),
    "resnet164": ({"width": 0.25, "depth": 11}, (3, 8, 8)),
    "densenet40": ({"growth": 4, "depth": 10}, (3, 8, 8)),
    "googlenet": ({"width": 0.05}, (3, 8, 8)),
    "resnet20": ({"width": 0.25, "depth": 14}, (3, 8, 8)),
    "resnet32": ({"width": 0.25, "depth": 14, "shortcut": "B"}, (3, 8, 8)),
    "resnet44": ({"width": 0.25, "depth": 14}, (3, 8, 8)),
    "resnet56": ({"width": 0.25, "depth": 14}, (3, 8, 8)),
    "resnet56_foad": ({}, (3, 8, 8)),
    "resnet110": ({"width": 0.25, "depth": 14}, (3, 8, 8)),
    "mobilenet_v1": ({"width": 0.25}, (3, 16, 16)),
    "mobilenet_v2": ({"width": 0.25}, (3, 16, 16)),
    "shufflenet_v1": ({}, (3, 16, 16)),
    "shufflenet_v2": ({"width": 0.5}, (3, 16, 16)),
    "ghostnet": ({"width": 0.5}, (3, 16, 16)),
}
#: with which tables they have fewer blocks, and all kinds of them
FEWER_BLOCKS = {
    "mobilenet._V1": mobilenet._V1[:5],
    "mobilenet._V2": [*mobilenet._V2[:2], mobilenet._V2[-1]],
    "shufflenet._REPEATS": (3, 3, 3),
    "ghostnet._ROWS": ghostnet._ROWS[:5],
}
#: those whose last layers are as wide whatever their width; eight channels of each group stay
NARROWED = {"mobilenet_v2", "shufflenet_v1", "ghostnet"}
#: definitions for ImageNet, of the same modules, and what a user names
NOT_WALKED = {"found", "torchvision", *(p.stem for p in (conf_dir() / "model").glob("imagenet_*"))}
NOT_WALKED |= {"mobilefacenet"}  # no classifier; tests/models/test_mobilefacenet.py prunes it
NOT_WALKED |= {"import", "timm"}  # others' networks; tests/models say what of them is taken
NO_NORMS = {"lenet5", "lenet_300_100", "mlp_500_300", "mlp_512_512", "vgg16_gap"}
SQUEEZES = {"ghostnet"}  # squeeze-and-excitation has no norms
NEEDS_NORMS = {
    "slimming": "criterion=slimming needs a norm with a scale behind",
    "taylor": "criterion=taylor with form=gate needs a norm with a scale behind",
    "bn_probability": "criterion=bn_probability needs a batch norm and a ReLU behind",
}
REFUSED_ON = {
    **{(c, m): why for c, why in NEEDS_NORMS.items() for m in NO_NORMS | SQUEEZES},
    # the last block's linear bottleneck is on no residual stream, and no ReLU follows it
    ("apoz", "mobilenet_v2"): "criterion=apoz counts the zeros of a ReLU, and",
    ("bn_probability", "mobilenet_v2"): "is not followed by a ReLU",
    # in front of the convolutions stand batch norm and ReLU, several of them behind a dense layer
    ("apoz", "densenet40"): "criterion=apoz counts the zeros of a ReLU, and",
    ("bn_probability", "densenet40"): "no batch norm follows conv1",
    ("bn_probability", "resnet164"): "no batch norm follows conv1",
}


def combination_refused(criterion, budget, schedule):
    """The reason, or None: the rules of the tables above, in the order the program tells them."""
    if schedule == "soft" and criterion not in WEIGHTS_ONLY:
        return "selects between epochs by weights alone"
    if schedule in ("during_training", "from_scratch"):
        if criterion not in WATCHES_TRAINING:
            return "needs a criterion that watches the training"
        decided = budget == "own" and criterion in DECIDES
        return "does not say when" if budget in NO_LIMIT and not decided else None
    if criterion in WATCHES_TRAINING:
        return "prunes while the network is trained"
    return budget_refused(criterion, budget, schedule)


def budget_refused(criterion, budget, schedule):
    """The reason that lies in the budget, or None."""
    if budget == "own":
        if criterion not in DECIDES:
            return "takes the criterion's own decision"
        again = criterion_of(criterion).decides_in_rounds
        in_rounds = schedule in ("iterative", "soft", "never") and not again
        return "no target that rounds could approach" if in_rounds else None
    if budget in COMPARES:
        if criterion in NOT_COMPARABLE:
            return "are not comparable"
        return "ranks all layers at once" if schedule == "layerwise" else None
    return None


@cache
def budget_of(name):
    return option("budget", name.partition("-")[0], Budget, **BUDGETS[name])


@cache
def schedule_of(name):
    return option("schedule", name, Schedule, **SCHEDULES[name])


def told(criterion, budget, schedule):
    """What the program says to a combination: one line, or None."""
    names = {"criterion": criterion, "budget": budget, "schedule": schedule}
    try:
        check_combination(
            names,
            criterion=criterion_of(criterion),
            budget=budget_of(budget),
            schedule=schedule_of(schedule),
        )
    except ConfigError as error:
        assert "\n" not in str(error)
        return str(error)
    return None


class Tiny(nn.Module):
    """What every criterion can serve: batch norm and ReLU behind every convolution, a block."""

    def __init__(self):
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.first, self.first_norm = nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.second_norm = nn.Conv2d(8, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.third, self.third_norm = nn.Conv2d(6, 10, 3, padding=1), nn.BatchNorm2d(10)
        self.fc = nn.Linear(10, 4)

    def forward(self, x):
        x = self.stem_norm(self.stem(x)).relu()
        y = self.first_norm(self.first(x)).relu()
        x = (x + self.second_norm(self.second(y))).relu()
        return self.fc(self.third_norm(self.third(x)).relu().mean((2, 3)))


def lively(network):
    """The network with batch norms that differ from channel to channel, in eval mode."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.1)
    return network.eval()


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return lively(Tiny()), Sample(torch.randn(4, 3, 6, 6), torch.arange(4), 0)


@cache
def tiny_map():
    """The channel map of every tiny network, which goes by names and shapes."""
    return trace(Tiny().eval(), torch.zeros(1, 3, 6, 6))


def carried_out(network, sample, criterion, budget, schedule):
    """Prunes as the runner does, without any training; returns plan and the worst error."""
    cmap = tiny_map()
    dense = dense_counts(cmap)
    groups = budget.select(cmap)
    if schedule.trains:
        work = Assignment(
            cmap=cmap, groups=groups, limits=budget.limits(cmap, dense),
            floors=budget.floors(cmap), seed=0, epochs=100, steps=100, images=10_000,
            log=lambda row: None,
        )  # fmt: skip
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        observer = schedule.observer(criterion, budget, dense, work)
        observer.start(network, optimizer)
        if criterion.watches:  # the training itself has tests of its own
            observer.finished()
            return None, 0.0
        observer.after_step(Moment(0, 99, 100, torch.empty(0), 1.0))
        facts = Evidence(network, cmap, groups, sample.images, sample.labels, 0)
        repair = option("repair", "none", Repair)
        [step] = schedule.steps([group.name for group in groups])
        made = cut_as(observer.plan(), facts, repair, step, example=sample.images)
        return made.plan, made.record.surgery_error
    method = Method(criterion, budget, option("repair", "none", Repair))
    whole, worst = Plan({}), 0.0
    for step in schedule.steps([group.name for group in groups]):
        made = cut(
            looked_at(network, trace(network, sample.images[:2]), step, sample),
            method,
            step,
            dense,
            example=sample.images[:2],
        )
        network, whole = made.network, Plan.compose(whole, made.plan)
        worst = max(worst, made.record.surgery_error)
    return whole, worst


def require_met(cmap, budget, plan):
    """Holds the plan to what the budget asks for, counted independently of its search."""
    dense, sizes = dense_counts(cmap), {g.name: g.size for g in budget.select(cmap)}
    kept = {name: len(plan.kept.get(name, range(size))) for name, size in sizes.items()}
    assert all(count >= 1 for count in kept.values())
    for field, have, whole in (
        ("Macs", cmap.macs(plan), dense.macs),
        ("Params", cmap.params(plan), dense.params),
    ):
        if field in type(budget).__name__:
            assert have <= 0.5 * whole
    if type(budget).__name__ in ("Uniform", "PerLayer"):
        assert kept == {name: size // 2 for name, size in sizes.items()}
    if type(budget).__name__ == "GlobalRanking":
        assert sum(kept.values()) == sum(sizes.values()) // 2
    assert cmap.params(plan) < dense.params


def walk(tiny, criterion, budget, schedule):
    """Carries one combination out on the tiny network, or holds the refusal to the table."""
    refused = combination_refused(criterion, budget, schedule)
    line = told(criterion, budget, schedule)
    assert (line is None) == (refused is None), line
    if refused is not None:
        assert refused in line
        return
    network, sample = tiny
    chosen = budget_of(budget)
    if isinstance(chosen, Latency):
        grid = Grid((1, 10), (1,), np.array([[1.0], [100.0]]), np.array([[1.0], [100.0]]))
        layers = [Layer("third", ("third.weight", 0), 1, grid)] * 2
        layers.append(Layer("first", ("first.weight", 0), 1, grid))
        chosen = chosen.timed(LayerTimes(layers, 300.0))
    plan, error = carried_out(
        network, sample, criterion_of(criterion), chosen, schedule_of(schedule)
    )
    assert error <= 1e-5
    cmap = tiny_map()
    if schedule == "never":
        assert cmap.params(plan) == cmap.params(Plan({}))
    elif plan is not None and budget != "own":
        require_met(cmap, chosen, plan)


def test_the_tables_name_every_option():
    assert {path.stem for path in (conf_dir() / "schedule").glob("*.yaml")} == set(SCHEDULES)
    assert len(CRITERIA) >= 15
    budgets = {name.partition("-")[0] for name in BUDGETS}
    assert {path.stem for path in (conf_dir() / "budget").glob("*.yaml")} == budgets
    assert {path.stem for path in (conf_dir() / "model").glob("*.yaml")} - NOT_WALKED == set(MODELS)


def test_every_combination_is_allowed_or_refused_in_one_line():
    for names in product(CRITERIA, BUDGETS, SCHEDULES):
        refused, line = combination_refused(*names), told(*names)
        assert (line is None) == (refused is None), (names, line)
        assert refused is None or refused in line, (names, line)


#: criterion -> the schedule with which it meets all budgets
USUAL = {name: "from_scratch" if name in WATCHES_TRAINING else "oneshot" for name in CRITERIA}


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_criteria_with_budgets(tiny, criterion, budget):
    walk(tiny, criterion, budget, USUAL[criterion])


@pytest.mark.parametrize(
    ("criterion", "schedule"),
    [pair for pair in product(CRITERIA, SCHEDULES) if pair not in USUAL.items()],
)
def test_criteria_with_schedules(tiny, criterion, schedule):
    walk(tiny, criterion, "macs", schedule)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_whole_product(tiny, criterion, schedule):
    for budget in BUDGETS:
        walk(tiny, criterion, budget, schedule)


@pytest.mark.parametrize("model", sorted(MODELS.keys() - {"googlenet"}))  # 57 layers: slow, below
def test_criteria_with_models(monkeypatch, model):
    for table, fewer in FEWER_BLOCKS.items():
        monkeypatch.setattr(f"prunebench.models.{table}", fewer)
    changes, shape = MODELS[model]
    network = built(model, changes, shape)
    if model == "resnet56_foad":  # three blocks of nine in each stage
        blocks = network.features.named_children()
        network.features = nn.Sequential(OrderedDict(one for one in blocks if one[0][-1] in "123"))
    if model in NARROWED:
        cmap = trace(network, torch.zeros(1, *shape))
        network = slim(network, cmap, Plan({g.name: list(range(8)[: g.size]) for g in cmap.groups}))
    with_all_criteria(model, network, shape)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_criteria_with_models_of_full_depth(model):
    changes, shape = MODELS[model]
    whole = {key: value for key, value in changes.items() if key != "depth"}
    with_all_criteria(model, built(model, whole, shape), shape)


def built(model, changes, shape):
    """The network of an option."""
    torch.manual_seed(0)
    return option("model", model, ModelSpec, **changes).build(shape, 4)


def with_all_criteria(model, network, shape):
    """Ranks by every criterion, or holds the refusal to the table, and cuts accordingly.

    What is cut goes by the plan alone, so that one cut is by all of them, each in some groups.
    """
    network = lively(network)
    sample = Sample(torch.randn(4, *shape), torch.arange(4), 0)
    cmap = trace(network, sample.images[:1])
    budget = budget_of("uniform")
    facts = Evidence(network, cmap, budget.select(cmap), sample.images, sample.labels, sample.seed)
    dense, kept = dense_counts(cmap), []
    for name in sorted({*CRITERIA} - WATCHES_TRAINING):
        why = REFUSED_ON.get((name, model))
        few = sorted(facts.groups, key=lambda group: group.size)[:1]
        looked_at = replace(facts, groups=tuple(few)) if name == "oracle" else facts
        try:
            ranks = criterion_of(name).rank(looked_at)
            plan = budget.choose(cmap, ranks, dense, share=1.0)
        except PruningError as error:
            assert why is not None, f"{name}: {error}"
            assert why in str(error)
            assert "\n" not in str(error)
            continue
        assert why is None, f"{name} works on {model}"
        for group in looked_at.groups:
            assert len(plan.kept[group.name]) == max(1, group.size // 2)
        kept.append(plan.kept)
    names = [group.name for group in facts.groups]
    whole = max(kept, key=len)
    turns = {name: kept[turn % len(kept)].get(name, whole[name]) for turn, name in enumerate(names)}
    [step] = OneShot().steps(names)
    none = option("repair", "none", Repair)
    made = cut_as(Plan(turns), facts, none, step, example=sample.images[:2])
    assert made.record.surgery_error <= 1e-5
