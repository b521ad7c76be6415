"""Taylor, compared with explicit gates, batches worked by hand and loops over weights."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from prunebench.budgets import Budget
from prunebench.channels import Site, trace
from prunebench.contracts import Evidence
from prunebench.criteria.taylor import Taylor, activation_scores, gate_scores, normed, weight_scores
from prunebench.errors import ConfigError, PruningError
from prunebench.options import option
from prunebench.repairs import Repair
from prunebench.run.step import Method, Sample, cut, dense_counts
from prunebench.run.step import evidence as looked_at
from prunebench.schedules import Step


class Net(nn.Module):
    """Two norms on a residual stream, one inside the block; `gate` multiplies behind each norm."""

    def __init__(self):
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.first, self.first_norm = nn.Conv2d(4, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.second, self.second_norm = nn.Conv2d(5, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 3)
        self.gate = {}

    def through(self, name, x):
        x = getattr(self, name)(x)
        return x * self.gate[name][:, None, None] if name in self.gate else x

    def forward(self, x):
        x = self.through("stem_norm", self.stem(x)).relu()
        y = self.through("first_norm", self.first(x)).relu()
        x = (x + self.through("second_norm", self.second(y))).relu()
        return self.fc(x.mean((2, 3)))


@pytest.fixture
def evidence():
    torch.manual_seed(0)
    network = Net().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
    images, labels = torch.randn(6, 3, 6, 6), torch.tensor([0, 1, 2, 2, 1, 0])
    cmap = trace(network, images[:1])
    return Evidence(network, cmap, tuple(cmap.groups), images, labels, 0)


def explicit_gates(evidence, batch):
    """(dL/dz)^2 of gates that are really there, averaged over batches."""
    network, names = evidence.network, ("stem_norm", "first_norm", "second_norm")
    found = dict.fromkeys(names, 0.0)
    starts = range(0, 6, batch)
    for start in starts:
        for name in names:
            size = getattr(network, name).num_features
            network.gate[name] = torch.ones(size, requires_grad=True)
        outputs = network(evidence.images[start : start + batch])
        loss = nn.functional.cross_entropy(outputs, evidence.labels[start : start + batch])
        slopes = torch.autograd.grad(loss, list(network.gate.values()))
        for name, slope in zip(names, slopes, strict=True):
            found[name] = found[name] + slope.double().square() / len(starts)
    network.gate.clear()
    return found


@pytest.mark.parametrize("batch", [1, 3, 6])
def test_gate_form_equals_gates_that_are_there(evidence, batch):
    expected = explicit_gates(evidence, batch)
    ranks = Taylor(form="gate", num_samples=6, batch=batch).rank(evidence)
    torch.testing.assert_close(ranks["first"].scores, expected["first_norm"], rtol=1e-4, atol=1e-10)
    both = (expected["stem_norm"] + expected["second_norm"]) / 2
    torch.testing.assert_close(ranks["stem"].scores, both, rtol=1e-4, atol=1e-10)


def test_weight_form_equals_a_loop_over_weights(evidence):
    network = evidence.network
    names = ("stem", "first", "second")
    weights = [getattr(network, name).weight for name in names]
    loss = nn.functional.cross_entropy(network(evidence.images), evidence.labels)
    slopes = dict(zip(names, torch.autograd.grad(loss, weights), strict=True))
    ranks = Taylor(form="weight", num_samples=6, batch=6).rank(evidence)
    for group, members in (("first", ["first"]), ("stem", ["stem", "second"])):
        for channel in range(len(ranks[group].scores)):
            expected = sum(
                (w.item() * g.item()) ** 2
                for name in members
                for w, g in zip(
                    getattr(network, name).weight[channel].flatten(),
                    slopes[name][channel].flatten(),
                    strict=True,
                )
            )
            assert ranks[group].scores[channel].item() == pytest.approx(expected, rel=1e-5)


def test_the_square_of_a_mean_is_not_the_mean_of_squares():
    # two examples, slopes (1, 0), (2, -1), (1, 3) of three channels: batch form .25, .25, 4
    site = Site("bn.weight", 0, torch.arange(3))
    batch = gate_scores({"bn.weight": torch.tensor([0.5, 0.5, 2.0]).double()}, (site,), 3)
    assert batch.tolist() == [0.25, 0.25, 4.0]
    single = [
        gate_scores({"bn.weight": torch.tensor(slopes).double()}, (site,), 3)
        for slopes in ([1.0, 2.0, 1.0], [0.0, -1.0, 3.0])
    ]
    assert ((single[0] + single[1]) / 2).tolist() == [0.5, 2.5, 5.0]


def test_the_weight_form_is_no_square_of_a_sum():
    site = Site("conv.weight", 0, torch.arange(2))
    products = {"conv.weight": torch.tensor([[3.0, -3.0], [1.0, 1.0]]).double()}
    assert weight_scores(products, (site,), 2).tolist() == [18.0, 2.0]


def test_the_network_is_left_as_it_was(evidence):
    network = evidence.network
    network.stem.weight.requires_grad_(False)
    network.fc.weight.grad = torch.ones_like(network.fc.weight)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        Taylor(form="weight", num_samples=4, batch=2).rank(evidence)
        Taylor(form="gate", num_samples=4, batch=2).rank(evidence)
        Taylor(form="activation", num_samples=4, batch=2).rank(evidence)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [n for n, p in network.named_parameters() if p.grad is not None] == ["fc.weight"]
    assert [n for n, p in network.named_parameters() if not p.requires_grad] == ["stem.weight"]


def test_activation_form_by_hand():
    # two examples of two channels on 1x2 maps; products a*g: (1, 1), (2, -2) and (-3, -1), (4, 0)
    a = torch.tensor([[[[1.0, 1.0]], [[2.0, 2.0]]], [[[3.0, 1.0]], [[4.0, 5.0]]]])
    g = torch.tensor([[[[1.0, 1.0]], [[1.0, -1.0]]], [[[-1.0, -1.0]], [[1.0, 0.0]]]])
    # channel 0: |1| + |-2| (not |1 - 2|), channel 1: |0| (not 2 + 2) + |2|
    scores = activation_scores(a, g)
    assert scores.tolist() == [3.0, 2.0]
    torch.testing.assert_close(normed(scores), torch.tensor([3.0, 2.0]).double() / 13**0.5)
    assert normed(torch.zeros(3)).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("batch", [1, 4, 6])
def test_activation_form_equals_a_loop_over_examples(evidence, batch):
    network = evidence.network
    expected = {"stem": torch.zeros(4).double(), "first": torch.zeros(5).double()}
    for image, label in zip(evidence.images, evidence.labels, strict=True):
        stem = network.stem_norm(network.stem(image[None])).relu()
        first = network.first_norm(network.first(stem)).relu()
        out = (stem + network.second_norm(network.second(first))).relu()
        loss = nn.functional.cross_entropy(network.fc(out.mean((2, 3))), label[None])
        for name, a in (("stem", stem), ("first", first)):
            [slope] = torch.autograd.grad(loss, [a], retain_graph=True)
            expected[name] += (a * slope)[0].mean((1, 2)).abs().detach().double()
    ranks = Taylor(form="activation", num_samples=6, batch=batch).rank(evidence)
    for name, scores in expected.items():
        want = scores / scores.norm()
        torch.testing.assert_close(ranks[name].scores, want, rtol=1e-5, atol=1e-9)


def test_activation_form_takes_frozen_weights_and_work_in_place():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Hardtanh(0.1, 0.3, inplace=True)
    network = nn.Sequential(*layers, nn.Conv2d(4, 2, 1), nn.Flatten()).eval().requires_grad_(False)
    images = torch.randn(2, 3, 3, 3)
    cmap = trace(network, images[:1])
    facts = Evidence(network, cmap, tuple(cmap.groups), images, torch.zeros(2).long(), 0)
    a = layers[0](images).relu().requires_grad_()
    loss = nn.functional.cross_entropy(network[3:](a.clamp(0.1, 0.3)), facts.labels)
    [slope] = torch.autograd.grad(loss, [a])
    with torch.no_grad():
        scores = Taylor(form="activation", num_samples=2, batch=2).rank(facts)["0"].scores
    torch.testing.assert_close(scores, normed((a * slope).sum((2, 3)).abs().sum(0)).double())


def test_gates_need_norms():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.Flatten()).eval()
    images = torch.zeros(2, 3, 3, 3)
    cmap = trace(network, images[:1])
    facts = Evidence(network, cmap, tuple(cmap.groups), images, torch.zeros(2).long(), 0)
    with pytest.raises(PruningError, match="behind 0, and there is none; set criterion.form=weigh"):
        Taylor(form="gate", num_samples=2, batch=2).rank(facts)
    assert len(Taylor(form="weight", num_samples=2, batch=2).rank(facts)["0"].scores) == 4


def test_ranges():
    assert Taylor(form="gate", num_samples=5, batch=2).images_needed == 5
    with pytest.raises(
        ConfigError, match="form must be one of gate, weight, activation; got 'norm'"
    ):
        Taylor(form="norm", num_samples=5, batch=2)
    with pytest.raises(ConfigError, match="num_samples must be at least 1, got 0"):
        Taylor(form="gate", num_samples=0, batch=2)
    with pytest.raises(ConfigError, match="batch must be at least 1, got 0"):
        Taylor(form="gate", num_samples=5, batch=0)


def test_a_weight_that_a_norm_computes_has_no_gradient(evidence):
    weight_norm(evidence.network.first)
    cmap = trace(evidence.network, evidence.images[:1])
    with pytest.raises(PruningError, match="first computes its own by a weight norm; set crit"):
        Taylor(form="weight", num_samples=6, batch=6).rank(
            replace(evidence, cmap=cmap, groups=tuple(cmap.groups))
        )


@pytest.mark.parametrize("form", ["gate", "weight", "activation"])
def test_scores_are_averaged_with_those_of_the_round_before(evidence, form):
    """Three rounds of one channel in four, against a list of scores kept by hand."""
    options = {"form": form, "num_samples": 8, "batch": 4}
    method = Method(
        Taylor(**options, ema=0.9),
        option("budget", "global_ranking", Budget, keep=0.4, floor_share=0.0),
        option("repair", "none", Repair),
    )
    sample = Sample(evidence.images, evidence.labels, 0)
    network, dense, known = evidence.network, dense_counts(evidence.cmap), {}
    for number in (1, 2, 3):
        step = Step(name=f"round{number}", groups=("first",), share=number / 3, epochs=0)
        cmap = trace(network, evidence.images[:1])
        groups = tuple(group for group in cmap.groups if group.name == "first")
        alone = Taylor(**options).rank(replace(evidence, network=network, cmap=cmap, groups=groups))
        fresh = alone["first"].scores.tolist()
        mixed = [
            0.9 * known[channel] + 0.1 * score if known else score
            for channel, score in enumerate(fresh)
        ]
        made = cut(
            looked_at(network, trace(network, evidence.images[:1]), step, sample),
            method,
            step,
            dense,
            example=evidence.images[:1],
        )
        kept = made.plan.kept["first"]
        assert sorted(kept) == sorted(
            sorted(range(len(mixed)), key=lambda c: -mixed[c])[: len(kept)]
        )
        known = {place: mixed[channel] for place, channel in enumerate(kept)}
        torch.testing.assert_close(made.scores["first"].tolist(), [*known.values()])
        network, sample = made.network, replace(sample, earlier=made.scores)
    assert len(kept) == 2
