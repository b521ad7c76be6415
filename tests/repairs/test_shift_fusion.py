"""Shift fusion: exact for dead channels, needed for that, and handled where impossible."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from prunebench.analysis.norm_wiring import wiring
from prunebench.budgets import Budget
from prunebench.channels import Plan, slim, trace, verify, wiring_of
from prunebench.checkpoints import slimmed
from prunebench.criteria import Criterion, Evidence
from prunebench.errors import ConfigError, PruningError
from prunebench.models.ghostnet import Ghostnet
from prunebench.models.mobilenet import MobilenetV1, MobilenetV2
from prunebench.models.shufflenet import ShufflenetV1, ShufflenetV2
from prunebench.options import option
from prunebench.repairs import Repair
from prunebench.run.step import Method, Sample, cut, dense_counts
from prunebench.run.step import evidence as looked_at
from prunebench.schedules.oneshot import OneShot

SPECS = {
    "v1": MobilenetV1(width=0.25, stem="cifar"),
    "v2": MobilenetV2(width=0.25, stem="cifar"),
    "shuffle1": ShufflenetV1(groups=3, stem="cifar"),
    "shuffle2": ShufflenetV2(width=0.5, stem="cifar"),
    "ghost": Ghostnet(width=0.5, stem="cifar"),
}


def fusion(**changes):
    return option("repair", "shift_fusion", Repair, **changes)


def randomise(network):
    """Float64, and batch norms that are no identities."""
    network = network.double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.5, 0.5)
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 2)
    return network


def lively(spec, images):
    """The network in float64, its batch norms no identities and fit to what they see.

    With arbitrary statistics nothing of the image would be left after a few depthwise layers.
    """
    network = randomise(spec.build(tuple(images.shape[1:]), 10))
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad():
        network.train()(images)
        logits = network.eval()(images)
    assert (logits - logits.mean(0)).abs().max() > 0.01 * logits.abs().max()
    return network


def facts_of(network, images):
    cmap = trace(network, images)
    return Evidence(network, cmap, tuple(cmap.groups), images, torch.zeros(len(images)).long(), 0)


def compared(network, plan, images, **changes):
    """Largest difference of the logits from the dense ones, with fusion and without."""
    facts = facts_of(network, images)
    folded = fusion(**changes).fold(facts, plan)
    small, bare = slim(folded, facts.cmap, plan), slim(network, facts.cmap, plan)
    assert verify(folded, small, facts.cmap, plan, images) < 1e-12
    with torch.no_grad():
        dense, fused, unfused = network(images), small(images), bare(images)
    return float((fused - dense).abs().max()), float((unfused - dense).abs().max())


def kill(norm, at):
    """Makes channels dead for any input, as in the specification."""
    norm.weight.data[at] = 1e-3
    norm.bias.data[at] = -5


@pytest.mark.parametrize("name", SPECS)
def test_whole_networks_with_dead_channels_are_exact_with_fusion_and_wrong_without(name):
    torch.manual_seed(0)
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    network = lively(SPECS[name], images)
    facts = facts_of(network, images)
    norms = wiring(network, images)
    killed = 0
    for group in facts.groups:
        producers = {site.module for site in group.producers}
        dead = torch.rand(group.size) < 0.3
        for site in group.norms:
            norm = norms[site.module]
            if norm.ceiling is not None:
                # behind a depthwise layer every third channel, so that all cases occur
                behind = norm.fed_by not in producers
                at = dead[site.classes]
                if behind:
                    at = torch.rand(len(at)) < 0.2
                kill(network.get_submodule(norm.name), at)
                killed += int(at.sum())
    criterion = option("criterion", "bn_probability", Criterion, linear="keep", rho_max=1.0)
    unscored = criterion.unscored(network, facts.cmap, facts.groups)
    scored = tuple(group for group in facts.groups if group.name not in unscored)
    facts = replace(facts, groups=scored)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    ranks = criterion.rank(facts)
    plan = Plan({key: rank.kept or (0,) for key, rank in ranks.items()})
    counts = [rank.counts for rank in ranks.values()]
    assert sum(row.get("case3", 0) for row in counts) > 20
    if name in ("v1", "v2"):
        assert sum(row.get("case2", 0) for row in counts) > 20
        assert sum(row.get("case4", 0) for row in counts) > 20
    assert killed > 100
    fused, unfused = compared(network, plan, images)
    assert fused < 1e-9
    assert unfused > 1e-3
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


def separable(*, padding=1, stride=1, act=nn.ReLU, clip_behind=True):
    torch.manual_seed(1)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), act(),
        nn.Conv2d(6, 6, 3, stride, padding=padding, groups=6),
        nn.BatchNorm2d(6), act() if clip_behind else nn.Identity(),
        nn.Conv2d(6, 5, 1, bias=False), nn.BatchNorm2d(5), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4),
    )  # fmt: skip
    return randomise(network)


@pytest.mark.parametrize("clip_behind", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("act", [nn.ReLU, nn.ReLU6])
def test_a_dead_channel_in_front_of_a_depthwise_layer(act, padding, stride, clip_behind):
    network = separable(padding=padding, stride=stride, act=act, clip_behind=clip_behind)
    kill(network[1], [1, 4])
    network[4].bias.data[[1, 4]] = 0.8
    images = torch.randn(3, 3, 9, 9, dtype=torch.float64)
    fused, unfused = compared(network, Plan({"0": (0, 2, 3, 5)}), images, border="refuse")
    assert fused < 1e-12
    assert unfused > 1e-3


def test_the_shift_is_worked_out_by_hand():
    network = separable()
    kill(network[1], [2])
    facts = facts_of(network, torch.zeros(1, 3, 8, 8, dtype=torch.float64))
    folded = fusion().fold(facts, Plan({"0": (0, 1, 3, 4, 5)}))
    depthwise, norm = network[3], network[4]
    scale = norm.weight[2] / (norm.running_var[2] + norm.eps).sqrt()
    left = ((depthwise.bias[2] - norm.running_mean[2]) * scale + norm.bias[2]).clamp(min=0)
    expected = network[7].running_mean - network[6].weight[:, 2, 0, 0] * left
    torch.testing.assert_close(folded[7].running_mean, expected.detach(), atol=1e-12, rtol=0)
    for key, value in folded.state_dict().items():
        if key != "7.running_mean":
            assert torch.equal(value, network.state_dict()[key])


def test_a_channel_dead_behind_the_depthwise_layer_leaves_nothing():
    network = separable()
    kill(network[4], [0, 3])
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    fused, unfused = compared(network, Plan({"0": (1, 2, 4, 5)}), images)
    assert fused < 1e-12
    assert unfused < 1e-12


def test_constant_channels_are_emulated_and_fused_alike():
    """Channels that are alive: the fused network is the dense one with them held at act(beta)."""
    network = separable(padding=0)
    network[1].bias.data.copy_(torch.tensor([0.7, -0.2, 0.4, 0.1, 0.3, -0.4]))
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    gone = [0, 1, 4]
    facts, plan = facts_of(network, images), Plan({"0": (2, 3, 5)})
    # beta of the norm behind is lowest, so that none counts as deader behind than in front
    network[4].bias.data.fill_(2.0)
    small = slim(fusion(constant="relu_beta").fold(facts, plan), facts.cmap, plan)
    with torch.no_grad():
        x = network[1](network[0](images))
        x[:, gone] = network[1].bias[gone].view(-1, 1, 1)
        for layer in network[2:]:
            x = layer(x)
        torch.testing.assert_close(small(images), x, atol=1e-12, rtol=0)
        assert (network(images) - x).abs().max() > 1e-3


def test_the_mean_behind_a_relu_is_the_better_constant_for_direct_readers():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 3, 1)
    ).double()
    network[0].weight.data.fill_(1.0)
    network.eval()
    images = torch.randn(1, 1, 200, 200, dtype=torch.float64)
    network[1].running_mean.fill_(float(images.mean()))
    network[1].running_var.fill_(float(images.var()))
    facts, plan = facts_of(network, images), Plan({"0": (0,)})
    errors = {}
    with torch.no_grad():
        for constant in ("zero_input", "relu_mean"):
            small = slim(fusion(constant=constant).fold(facts, plan), facts.cmap, plan)
            lost = (network(images) - small(images)) / network[3].weight[:, 1].view(1, 3, 1, 1)
            errors[constant] = float(lost.square().mean())
    # z = 0: mean squared errors .501 and .341 in units of s^2
    assert errors["zero_input"] == pytest.approx(0.501, abs=0.02)
    assert errors["relu_mean"] == pytest.approx(0.341, abs=0.02)


def padded(kernel, padding, stride):
    """A constant positive channel in front of a padded convolution."""
    torch.manual_seed(2)
    network = nn.Sequential(
        nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU(),
        nn.Conv2d(3, 4, kernel, stride, padding=padding, bias=True),
    )  # fmt: skip
    network = randomise(network)
    network[1].weight.data[1] = 0
    network[1].bias.data[1] = 0.9
    return network


@pytest.mark.parametrize(
    ("kernel", "padding", "stride", "size", "fractions"),
    [
        (3, 1, 1, 8, [1 - 1 / 8, 1, 1 - 1 / 8]),
        (3, 1, 2, 8, [1 - 2 / 8, 1, 1]),
        (5, 2, 1, 8, [1 - 2 / 8, 1 - 1 / 8, 1, 1 - 1 / 8, 1 - 2 / 8]),
    ],
)
def test_the_mean_over_the_map_follows_the_in_range_fractions(
    kernel, padding, stride, size, fractions
):
    network = padded(kernel, padding, stride)
    facts = facts_of(network, torch.zeros(1, 3, size, size, dtype=torch.float64))
    # a network that ends in a convolution freezes only its output
    folded = fusion(constant="relu_beta").fold(facts, Plan({"0": (0, 2)}))
    f = torch.tensor(fractions, dtype=torch.float64)
    expected = 0.9 * torch.einsum("ouv,u,v->o", network[3].weight[:, 1], f, f)
    torch.testing.assert_close(folded[3].bias, (network[3].bias + expected).detach())


def test_border_options():
    network = padded(3, 1, 1)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    facts, plan = facts_of(network, images), Plan({"0": (0, 2)})
    errors = {}
    with torch.no_grad():
        for border in ("mean", "interior"):
            repair = fusion(constant="relu_beta", border=border)
            small = slim(repair.fold(facts, plan), facts.cmap, plan)
            errors[border] = small(images) - network(images)
    assert errors["mean"].mean((0, 2, 3)).abs().max() < 1e-12  # no error on average
    assert errors["mean"].abs().max() > 1e-3
    assert errors["interior"][..., 1:-1, 1:-1].abs().max() < 1e-12  # none inside
    assert errors["interior"].abs().max() > 1e-2
    with pytest.raises(PruningError, match="the cut channels add to 3 differs over the map"):
        fusion(constant="relu_beta", border="refuse").fold(facts, plan)


def test_the_map_of_a_shift_is_exact_in_every_place():
    """Also behind stride, where the reader's own outputs are cut, and for a second cut after it."""
    torch.manual_seed(1)
    network = randomise(
        nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
            nn.Conv2d(6, 5, 3, padding=1, stride=2, bias=False), nn.BatchNorm2d(5), nn.ReLU(),
            nn.Conv2d(5, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
        )
    )  # fmt: skip
    images = torch.randn(3, 3, 9, 9, dtype=torch.float64)
    for norm, at in ((network[1], [1, 4]), (network[4], [0])):
        norm.weight.data[at], norm.bias.data[at] = 0, 0.7  # always 0.7 behind the ReLU
    facts, plan = facts_of(network, images), Plan({"0": (0, 2, 3, 5), "3": (1, 2, 3, 4)})
    repair = fusion(constant="relu_beta", border="map")
    small = slim(repair.fold(facts, plan), facts.cmap, plan)
    repair.settle(small, facts, plan)
    assert small[3].place_bias.shape == (4, 5, 5)
    again, second = trace(small, images), Plan({"3": (0, 3), "6": (0, 1, 3)})
    with torch.no_grad():
        torch.testing.assert_close(small(images), network(images), atol=1e-12, rtol=0)
        smaller = slim(small, again, second)
    assert smaller[3].place_bias.shape == (2, 5, 5)
    assert verify(small, smaller, again, second, images) < 1e-12


@pytest.mark.parametrize("constant", ["zero_input", "relu_beta", "relu_mean"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shift", [-2.0, 0.8])
def test_constants_above_zero_in_front_of_a_depthwise_layer(shift, stride, constant):
    """However dead the norm behind looks: with the map of what they leave, nothing is lost."""
    network = separable(stride=stride)
    gone = [1, 4]
    network[1].weight.data[gone], network[1].bias.data[gone] = 0.0, 0.9
    network[3].weight.data[gone], network[4].bias.data[gone] = 0.5, shift
    images = torch.randn(3, 3, 9, 9, dtype=torch.float64)
    facts, plan = facts_of(network, images), Plan({"0": (0, 2, 3, 5)})
    repair = fusion(constant=constant, border="map")
    small = slim(repair.fold(facts, plan), facts.cmap, plan)
    repair.settle(small, facts, plan)
    assert small[6].place_bias.std((1, 2)).min() > 1e-3  # the border differs from the inside
    with torch.no_grad():
        torch.testing.assert_close(small(images), network(images), atol=1e-12, rtol=0)
        bare = slim(network, facts.cmap, plan)(images)
        assert (bare - network(images)).abs().max() > 1e-2


def test_constants_go_where_asked_and_nothing_is_lost():
    network = separable()
    network[1].weight.data[[1, 4]], network[1].bias.data[[1, 4]] = 1e-3, 0.9
    network[3].weight.data[[1, 4]] = 0.5
    kill(network[1], [3])
    network[4].running_var[3] = 1e-9
    network[4].weight.data[5] = 0  # a constant behind, of an input that varies
    images = torch.randn(3, 3, 9, 9, dtype=torch.float64)
    facts = facts_of(network, images)

    def kept(**changes):
        criterion = option("criterion", "bn_probability", Criterion, linear="keep", **changes)
        scored = tuple(group for group in facts.groups if group.name == "0")
        return criterion.rank(replace(facts, groups=scored))["0"].kept

    assert kept() == (0, 1, 2, 4, 5)
    assert kept(also_constant=True) == (0, 1, 2, 4)  # padding makes uneven what 1 and 4 leave
    assert kept(also_constant=True, uneven="cut") == (0, 2)
    plan = Plan({"0": (0, 2)})
    repair = fusion(border="map")
    small = slim(repair.fold(facts, plan), facts.cmap, plan)
    repair.settle(small, facts, plan)
    with torch.no_grad():
        rest = (small(images) - network(images)).abs().max()
        network[1].weight.data[[1, 4]] = 0  # what is left is the spread that counts as none
        exact = (small(images) - network(images)).abs().max()
    assert exact < 1e-12 < rest < 1e-2


def test_train_mode_computes_the_same_as_before():
    """Batch statistics cancel a shifted running mean; a shifted beta they would not."""
    network = separable()
    kill(network[1], [1, 4])
    network[4].bias.data[[1, 4]] = 0.8
    images = torch.randn(8, 3, 8, 8, dtype=torch.float64)
    facts, plan = facts_of(network, images), Plan({"0": (0, 2, 3, 5)})
    folded = fusion().fold(facts, plan)
    shift = folded[7].running_mean - network[7].running_mean
    small = slim(folded, facts.cmap, plan)
    network.train(), small.train()
    with torch.no_grad():
        torch.testing.assert_close(small(images), network(images), atol=1e-9, rtol=0)
    assert shift.abs().max() > 1e-3


class Stream(nn.Module):
    """Two blocks that add to a stream without activation; each reads what came before."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(4, 5, 1, bias=False), nn.BatchNorm2d(5), nn.ReLU(),
                nn.Conv2d(5, 4, 1, bias=False), nn.BatchNorm2d(4),
            )
            for _ in range(2)
        )  # fmt: skip
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.fc(x.mean((2, 3)))


def test_every_reader_of_a_residual_stream_gets_the_sum_of_the_writers_before_it():
    torch.manual_seed(0)
    network = randomise(Stream())
    writers = [network.stem[1], network.blocks[0][4], network.blocks[1][4]]
    for norm in writers:
        norm.weight.data[2] = 0
    images = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    facts, plan = facts_of(network, images), Plan({"stem.0": (0, 1, 3)})
    folded = fusion().fold(facts, plan)
    sums = torch.cumsum(torch.stack([norm.bias[2] for norm in writers]), 0).detach()
    for number, block in enumerate(network.blocks):
        shifted = folded.blocks[number][1].running_mean - block[1].running_mean
        torch.testing.assert_close(shifted, -block[0].weight[:, 2, 0, 0].detach() * sums[number])
    shifted = folded.fc.bias - network.fc.bias
    torch.testing.assert_close(shifted, network.fc.weight[:, 2].detach() * sums[2])
    fused, unfused = compared(network, plan, images)
    assert fused < 1e-12
    assert unfused > 1e-3


def test_a_flattened_map_is_folded_into_the_bias_behind_it():
    torch.manual_seed(0)
    network = randomise(nn.Sequential(
        nn.Conv2d(2, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 9, 3),
    ))  # fmt: skip
    kill(network[1], [3])
    network[4].bias.data[3] = 0.7
    images = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    fused, unfused = compared(network, Plan({"0": (0, 1, 2)}), images)
    assert fused < 1e-12
    assert unfused > 1e-3


def test_what_has_nowhere_to_go_is_refused():
    network = separable()
    kill(network[1], [1])
    network[4].bias.data[1] = 1.0
    network[7] = nn.Identity()
    facts = facts_of(network, torch.zeros(1, 3, 8, 8, dtype=torch.float64))
    with pytest.raises(PruningError, match="6 has neither a bias nor a batch norm right behind"):
        fusion().fold(facts, Plan({"0": (0, 2, 3, 4, 5)}))
    folded = fusion().fold(facts, Plan({}))  # nothing is cut, nothing to fold
    assert torch.equal(folded[6].weight, network[6].weight)


@pytest.mark.parametrize("norm", [nn.Identity, lambda: nn.GroupNorm(5, 5)])
def test_channels_without_a_batch_norm_leave_nothing(norm):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 5, 3), norm(), nn.ReLU(), nn.Conv2d(5, 2, 3)).eval()
    facts = facts_of(network, torch.randn(2, 3, 8, 8))
    folded = fusion().fold(facts, Plan({"0": (0, 2)}))
    assert torch.equal(folded[3].bias, network[3].bias)


class Recurrent(nn.Module):
    """A recurrent layer behind a norm and a ReLU."""

    def __init__(self, norm):
        super().__init__()
        self.a, self.norm, self.rnn = nn.Conv1d(3, 4, 1), norm, nn.GRU(4, 2)

    def forward(self, x):
        return self.rnn(self.norm(self.a(x)).relu().permute(2, 0, 1))[0]


def test_a_recurrent_reader_is_refused():
    for norm in (nn.BatchNorm1d(4), nn.Identity()):
        network = Recurrent(norm).eval()
        images = torch.zeros(1, 3, 6)
        cmap = trace(network, images)
        facts = Evidence(network, cmap, tuple(cmap.groups), images, torch.zeros(1).long(), 0)
        if isinstance(norm, nn.BatchNorm1d):
            with pytest.raises(PruningError, match="cannot fold what is cut into rnn, a recurrent"):
                fusion().fold(facts, Plan({"a": [0, 2]}))
            fusion().fold(facts, Plan({}))
        else:  # there is nothing to fold
            fusion().fold(facts, Plan({"a": [0, 2]}))


def leak(z, gamma):
    """Error left by folding act(beta) for a channel of spread gamma, z deviations below zero.

    The channel is drawn pixel by pixel; MSE over the second moment of the removed output.
    """
    generator = torch.Generator().manual_seed(0)
    x = gamma * (torch.randn(500, 1, 64, 64, generator=generator, dtype=torch.float64) - z)
    depthwise = torch.randn(1, 1, 3, 3, generator=generator, dtype=torch.float64) / 3
    out = nn.functional.conv2d(x.clamp(min=0), depthwise)
    mean, variance, shift = out.mean(), out.var(), 0.5
    normed = ((out - mean) / (variance + 1e-5).sqrt() + shift).clamp(min=0)
    constant = (-mean / (variance + 1e-5).sqrt() + shift).clamp(min=0)
    rho = float(variance / (variance + 1e-5))
    return float((normed - constant).square().mean() / normed.square().mean()), rho


def test_a_norm_behind_amplifies_rare_bursts_and_rho_tells():
    loud, high = leak(3.0, 1.0)
    quiet, low = leak(4.0, 0.05)
    assert loud > 0.3
    assert high > 0.5
    assert quiet < 0.01
    assert low < 0.1


class Excited(nn.Module):
    """Squeeze-and-excitation between a depthwise layer and its reader."""

    def __init__(self):
        super().__init__()
        self.front = separable(padding=0)[:6]
        self.squeeze = nn.Conv2d(6, 2, 1)
        self.expand = nn.Conv2d(2, 6, 1)
        self.last = nn.Sequential(nn.Conv2d(6, 3, 1, bias=False), nn.BatchNorm2d(3), nn.ReLU())

    def forward(self, x):
        x = self.front(x)
        gate = self.expand(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return self.last(x * gate)


def test_behind_excitation_the_mean_gate_of_training_images_is_taken():
    torch.manual_seed(3)
    network = randomise(Excited())
    kill(network.front[1], [1, 4])
    network.front[4].bias.data[[1, 4]] = 0.8
    images = torch.randn(16, 3, 8, 8, dtype=torch.float64)
    facts = facts_of(network, images)
    plan = Plan({"front.0": (0, 2, 3, 5)})
    folded = fusion(images=16).fold(facts, plan)
    with torch.no_grad():
        x = network.front(images)
        gate = network.expand(network.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        held = (x * gate)[:, [1, 4]].mean((0, 2, 3))
        expected = network.last[0].weight[:, [1, 4], 0, 0] @ held
    shifted = network.last[1].running_mean - folded.last[1].running_mean
    torch.testing.assert_close(shifted, expected)
    squeezed = folded.squeeze.bias - network.squeeze.bias
    torch.testing.assert_close(
        squeezed.detach(), (network.squeeze.weight[:, [1, 4], 0, 0] @ x[0, [1, 4], 0, 0]).detach()
    )
    ranked = option("criterion", "bn_probability", Criterion, rho_max=1.0).rank(
        Evidence(network, facts.cmap, facts.groups[:1], images, facts.labels, 0)
    )["front.0"]
    assert ranked.counts["uneven"] == 2  # so the criterion keeps them
    assert math.isfinite(float(ranked.scores.sum()))


def test_a_step_of_a_run_measures_with_and_without_fusion_and_records_the_cases():
    torch.manual_seed(0)
    images = torch.randn(4, 3, 32, 32)
    network = lively(SPECS["v1"], images.double()).float()
    dead = [1, 3, 5]
    for block in list(network.features)[:3]:
        kill(block.bn2, dead)
    for block in list(network.features)[1:4]:
        block.bn1.running_var[dead] = 1e-7  # a constant has no variance: rho is small
        block.bn1.running_mean[dead] = 0
        block.bn1.bias.data[dead] = 0.8
    method = Method(
        option("criterion", "bn_probability", Criterion),
        option("budget", "own", Budget),
        fusion(images=4),
    )
    cmap = trace(network, images[:1])
    [step] = OneShot().steps([group.name for group in cmap.groups])
    sample = Sample(images, torch.zeros(4, dtype=torch.int64), 0)
    made = cut(
        looked_at(network, trace(network, images[:1]), step, sample),
        method,
        step,
        dense_counts(cmap),
        example=images[:1],
    )
    assert made.plan.kept["features.block2.pointwise"] == (0, 2, 4, *range(6, 32))
    assert made.record.counts["features.block2.pointwise"]["case3"] == 3
    with torch.no_grad():
        dense = network(images)
        torch.testing.assert_close(made.network(images), dense)
        bare = slim(network, cmap, made.plan)(images)
        assert (bare - dense).abs().max() > 0.01 * dense.abs().max()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"constant": "beta"}, "constant must be one of zero_input, relu_beta, relu_mean"),
        ({"border": "whole"}, "border must be one of mean, interior, map, refuse; got 'whole'"),
        ({"images": -1}, "images must not be negative, got -1"),
    ],
)
def test_ranges(changes, message):
    with pytest.raises(ConfigError, match=message):
        fusion(**changes)


def test_dead_channels_of_shuffled_groups_go_in_equal_counts_without_a_loss(tmp_path):
    torch.manual_seed(0)
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    spec = ShufflenetV1(groups=3, stem="cifar", shuffle="transpose")
    network = lively(spec, images)
    for name, module in network.named_modules():
        if name.endswith(".bn1"):
            kill(module, torch.rand(module.num_features) < 0.4)
    criteria = [
        option("criterion", "bn_probability", Criterion, linear="keep", rho_max=1.0, regroup=on)
        for on in (False, True)
    ]
    gone = []
    for criterion in criteria:
        made = criterion.arranged(network, images)
        facts = facts_of(made, images)
        unscored = criterion.unscored(made, facts.cmap, facts.groups)
        inner = tuple(g for g in facts.groups if g.name not in unscored and g.name != "conv1")
        ranks = criterion.rank(replace(facts, groups=inner))
        cut_away = sum(1 - len(ranks[g.name].kept) / g.size for g in inner) / len(inner)
        gone.append(cut_away)
    assert gone[0] < 0.1 < 0.25 < gone[1]
    plan = Plan({key: rank.kept for key, rank in ranks.items()})
    facts = facts_of(made, images)
    small = slim(fusion().fold(facts, plan), facts.cmap, plan).eval()
    with torch.no_grad():
        torch.testing.assert_close(small(images), network(images), rtol=1e-9, atol=1e-9)
    wiring = wiring_of(made)
    section = {
        "_target_": "prunebench.models.shufflenet.ShufflenetV1",
        "groups": 3,
        "stem": "cifar",
        "shuffle": "transpose",
    }
    origin = slimmed.Provenance(
        section, (3, 16, 16), 10, (plan,), (0.5,) * 3, (0.5,) * 3, wiring=wiring
    )
    slimmed.save(tmp_path / "slim.pt", small.float(), origin)
    loaded = slimmed.load(tmp_path / "slim.pt")
    assert wiring_of(loaded) == wiring_of(small)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images.float()), small(images.float()))
