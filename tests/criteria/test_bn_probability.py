"""The four cases, the gate and the refusals, compared with channels checked one by one."""

import math
from dataclasses import replace
from statistics import NormalDist

import pytest
import torch
from torch import nn

from prunebench.analysis.norm_wiring import wiring
from prunebench.channels import GatherChannels, trace
from prunebench.criteria import Criterion, Evidence
from prunebench.criteria.bn_probability import LIMIT
from prunebench.errors import ConfigError, PruningError
from prunebench.models.ghostnet import Ghostnet
from prunebench.models.mobilenet import MobilenetV1, MobilenetV2
from prunebench.models.shufflenet import ShufflenetV1, ShufflenetV2
from prunebench.options import option

EPS = 1e-5


def criterion(**changes):
    return option("criterion", "bn_probability", Criterion, **changes)


def evidence(network, size=8):
    network.eval()
    weight = next(network.parameters())
    images = torch.zeros(1, weight.shape[1], size, size, dtype=weight.dtype)
    cmap = trace(network, images)
    return Evidence(network, cmap, tuple(cmap.groups), images, torch.zeros(1).long(), 0)


def separable(act=nn.ReLU, *, clip_behind=True, channels=4):
    """Convolution, norm, activation, depthwise, norm (and activation), 1x1, norm."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), act(),
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.BatchNorm2d(channels), act() if clip_behind else nn.Identity(),
        nn.Conv2d(channels, 5, 1, bias=False), nn.BatchNorm2d(5), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2),
    ).double()  # fmt: skip


def put(norm, *, z, rho=None):
    """Gives every channel of `norm` the score z and, if said, the given rho."""
    norm.running_var.fill_(1.0)
    if rho is not None:
        rho = torch.tensor(rho, dtype=torch.float64)
        norm.running_var.copy_(EPS * rho / (1 - rho))
    spread = (norm.running_var / (norm.running_var + EPS)).sqrt()
    norm.weight.data.fill_(1.0)
    norm.bias.data.copy_(-torch.tensor(z, dtype=torch.float64) * spread)


IN, OUT = [0.0, 3.0, 3.0, 0.0], [0.5, 4.0, 0.5, 4.0]


@pytest.mark.parametrize("act", [nn.ReLU, nn.ReLU6])
def test_four_cases(act):
    network = separable(act)
    put(network[1], z=IN)
    put(network[4], z=OUT, rho=[0.05] * 4)
    rank = criterion().rank(evidence(network))["0"]
    assert rank.kept == (0,)
    counts = {"case1": 1, "case2": 1, "case3": 1, "case4": 1}
    counts |= {"case3_amplified": 0, "case4_read_elsewhere": 0, "uneven": 0}
    counts |= {"z>=1": 3, "z>=2": 3, "z>=3": 3, "rho small": 4}
    assert rank.counts == counts
    # the pair is as dead as its deader side
    assert rank.scores.tolist() == pytest.approx([-0.5, -4, -3, -4])


def test_an_amplifying_norm_keeps_what_is_dead_in_front_only():
    network = separable()
    put(network[1], z=IN)
    put(network[4], z=OUT, rho=[0.05, 0.5, 0.5, 0.5])
    rank = criterion().rank(evidence(network))["0"]
    assert rank.kept == (0, 2)  # case 2 and case 4 do not rest on what is in front
    assert rank.counts["case3"] == rank.counts["case3_amplified"] == 1
    assert rank.counts["rho small"] == 1
    assert rank.scores.tolist() == pytest.approx([-0.5, -4, -0.5, -4])
    assert criterion(rho_max=0.6).rank(evidence(network))["0"].kept == (0,)


def test_behind_a_linear_norm_nothing_is_dead():
    network = separable(clip_behind=False)
    put(network[1], z=IN)
    put(network[4], z=OUT, rho=[0.05] * 4)
    rank = criterion().rank(evidence(network))["0"]
    assert rank.kept == (0, 3)
    assert rank.counts["case3"] == 2
    assert rank.counts["case2"] == rank.counts["case4"] == 0
    assert rank.scores.tolist() == pytest.approx([0, -3, -3, 0], abs=1e-12)


@pytest.mark.parametrize("tau", [0.9, 0.97725, 0.99865])
def test_the_threshold_is_a_probability(tau):
    network = separable(channels=40)
    z = torch.linspace(-1, 4, 40, dtype=torch.float64)
    put(network[1], z=z.tolist())
    put(network[4], z=[-1.0] * 40, rho=[0.05] * 40)
    kept = criterion(tau=tau).rank(evidence(network))["0"].kept
    plain = [i for i, value in enumerate(z.tolist()) if NormalDist().cdf(value) < tau]
    assert list(kept) == plain


def test_padding_in_front_of_a_convolution_is_its_own_padding():
    """As TensorFlow's networks come: zeros are put around the maps by a function of its own."""
    network = separable()
    put(network[1], z=IN)
    put(network[4], z=OUT, rho=[0.05] * 4)
    own = criterion().rank(evidence(network))["0"]
    network[3] = nn.Sequential(nn.ZeroPad2d(1), network[3])
    network[3][1].padding = (0, 0)
    apart = criterion().rank(evidence(network))["0"]
    assert apart.scores.tolist() == own.scores.tolist()
    assert (apart.kept, apart.counts) == (own.kept, own.counts)
    norms = wiring(network, torch.zeros(1, 3, 8, 8, dtype=torch.float64))
    assert (norms["4"].source, norms["1"].reader) == ("1", "3.1")


@pytest.mark.parametrize("pad", [nn.ConstantPad2d(1, 0.5), nn.ReflectionPad2d(1)])
def test_other_padding_is_none_of_the_convolution(pad):
    network = separable()
    network[3] = nn.Sequential(pad, network[3])
    norms = wiring(network, torch.zeros(1, 3, 8, 8, dtype=torch.float64))
    assert (norms["4"].source, norms["1"].reader) == (None, None)


class Read(nn.Module):
    """A depthwise layer whose input has another reader: as in a ghost module."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        cheap = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
        self.cheap = nn.Sequential(cheap, nn.BatchNorm2d(4), nn.ReLU())
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = self.first(x)
        return self.last(torch.cat([x, self.cheap(x)], 1))


def test_case_four_stays_where_something_else_reads_the_input():
    torch.manual_seed(0)
    network = Read().double()
    put(network.first[1], z=IN)
    put(network.cheap[1], z=OUT, rho=[0.05] * 4)
    rank = criterion().rank(evidence(network))["first.0"]
    assert rank.kept == (0, 3)
    assert rank.counts["case4"] == rank.counts["case4_read_elsewhere"] == 1
    # both halves must be dead: the least of z in front and of the pair
    assert rank.scores.tolist() == pytest.approx([0, -3, -3, 0], abs=1e-12)


def test_wiring_sees_what_feeds_clips_and_reads():
    network = separable(nn.ReLU6)
    found = wiring(network, torch.zeros(1, 3, 8, 8, dtype=torch.float64))
    assert [norm.name for norm in found.values()] == ["1", "4", "7"]
    assert [norm.fed_by for norm in found.values()] == ["0", "3", "6"]
    assert [norm.source for norm in found.values()] == [None, "1", None]
    assert [norm.reader for norm in found.values()] == ["3", None, None]
    assert [norm.ceiling for norm in found.values()] == [6.0, 6.0, math.inf]


def test_wiring_looks_through_shuffles_and_leaves_the_network_alone():
    network = separable()
    network.insert(3, GatherChannels([2, 0, 3, 1]))
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = wiring(network, torch.zeros(1, 3, 8, 8, dtype=torch.float64))
    assert (found["1"].reader, found["5"].source) == ("4", "1")
    assert all(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_plain_relu_groups_count_dead_and_alive():
    network = nn.Sequential(
        nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 3)
    ).double()
    put(network[1], z=[5.0, 0.0, 2.5])
    rank = criterion().rank(evidence(network))["0"]
    assert rank.kept == (1,)
    assert (rank.counts["dead"], rank.counts["alive"]) == (2, 1)
    assert [rank.counts[f"z>={least}"] for least in (1, 2, 3)] == [2, 2, 1]
    assert "rho small" not in rank.counts  # there is no depthwise layer to amplify anything


def test_scores_stay_finite():
    network = separable(clip_behind=False)
    network[1].weight.data.zero_()
    network[1].bias.data.copy_(torch.tensor([-1.0, -1.0, 1.0, 1.0]))
    put(network[4], z=[-1.0] * 4, rho=[0.05] * 4)
    scores = criterion().rank(evidence(network))["0"].scores
    assert scores.tolist() == [-LIMIT, -LIMIT, LIMIT, LIMIT]


REFUSED = [
    (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)),
     "behind 0, and 1 is not followed by a ReLU; set budget.exclude=\\[0\\] or criterion.linear"),
    (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)),
     "no batch norm follows 0"),
    (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)),
     "no batch norm follows 0"),
    (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sigmoid(), nn.Conv2d(4, 2, 1)),
     "1 is not followed by a ReLU"),
    (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Hardtanh(), nn.Conv2d(4, 2, 1)),
     "1 is not followed by a ReLU"),
]  # fmt: skip


@pytest.mark.parametrize(("network", "message"), REFUSED, ids=range(len(REFUSED)))
def test_norms_without_relu_are_refused_by_name_and_never_scored(network, message):
    facts = evidence(network)
    about = (facts.network, facts.cmap, facts.groups)
    assert criterion().unscored(*about) == {}
    for linear in ("refuse", "keep"):
        with pytest.raises(PruningError, match=message):
            criterion(linear=linear).rank(facts)
    [(name, why)] = criterion(linear="keep").unscored(*about).items()
    assert name == "0"
    assert why in message or "is not followed by a ReLU" in why


def test_norms_without_statistics_are_refused():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU(),
        nn.Conv2d(4, 2, 1),
    )  # fmt: skip
    with pytest.raises(PruningError, match="1 keeps no running statistics"):
        criterion().rank(evidence(network))


@pytest.mark.parametrize(
    ("spec", "scored", "whole"),
    [
        (MobilenetV1(width=0.25, stem="cifar"), ["conv", "features.block13.pointwise"], []),
        (
            MobilenetV2(width=0.25, stem="cifar"),
            ["features.2.conv.0.0", "features.18.0"],
            ["features.2.conv.2", "features.4.conv.2"],
        ),
        (ShufflenetV1(groups=3, stem="cifar"), ["stage2.0.conv1"], ["conv1"]),
        (ShufflenetV2(width=0.5, stem="cifar"), ["conv1.0", "stage4.3.branch2.0"], []),
        (
            Ghostnet(width=0.5, stem="cifar"),
            ["blocks.0.ghost1.primary_conv.0", "blocks.4.ghost1.primary_conv.0", "conv_last"],
            ["blocks.3.se.conv_reduce", "blocks.2.ghost2.primary_conv.0", "conv_head"],
        ),
    ],
    ids=["v1", "v2", "s1", "s2", "ghost"],
)
def test_which_groups_of_the_zoo_have_a_score(spec, scored, whole):
    network = spec.build((3, 32, 32), 10)
    facts = evidence(network, 32)
    kept_whole = set(criterion(linear="keep").unscored(network, facts.cmap, facts.groups))
    scorable = tuple(group for group in facts.groups if group.name not in kept_whole)
    assert criterion().rank(replace(facts, groups=scorable)).keys() == {g.name for g in scorable}
    names = {group.name for group in facts.groups}
    assert set(scored) <= names - kept_whole
    assert {name for name in whole if name in names} <= kept_whole
    if not whole:
        assert not kept_whole


def test_a_class_of_several_channels_is_as_alive_as_its_liveliest():
    network = ShufflenetV1(groups=3, stem="cifar").build((3, 32, 32), 10).double()
    unit = network.stage2[1]
    z = torch.zeros(60, dtype=torch.float64)
    z[torch.tensor([0, 20, 40, 1, 21])] = 3.0  # all of class 0, two of three of class 1
    put(unit.bn1, z=z.tolist())
    put(unit.bn2, z=[0.0] * 60, rho=[0.01] * 60)
    facts = evidence(network, 32)
    [group] = (group for group in facts.groups if group.name == "stage2.1.conv1")
    rank = criterion().rank(replace(facts, groups=(group,)))["stage2.1.conv1"]
    assert rank.kept == tuple(range(1, 20))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tau": 1.0}, "tau must lie in \\(0, 1\\), got 1.0"),
        ({"rho_max": -0.1}, "rho_max must lie in \\[0, 1\\]"),
        ({"linear": "drop"}, "linear must be one of refuse, keep; got 'drop'"),
        ({"uneven": "drop"}, "uneven must be one of keep, cut; got 'drop'"),
    ],
)
def test_ranges(changes, message):
    with pytest.raises(ConfigError, match=message):
        criterion(**changes)


class Listed(nn.Module):
    """A network one of whose modules is given a list, and another nothing at all by position."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)
        self.joined, self.act = Joined(), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.joined([self.act(input=self.norm(self.a(x)))]))


class Joined(nn.Module):
    def forward(self, parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat([part.clone() for part in parts], 1)


def test_modules_are_given_what_they_like():
    [norm] = wiring(Listed(), torch.zeros(1, 3, 4, 4)).values()
    assert (norm.name, norm.fed_by, norm.ceiling) == ("norm", "a", float("inf"))
