"""MobileNets, ShuffleNets and GhostNet: counts, shuffles, names, and surgery on all of them."""

import pytest
import torch
from torch import nn
from torchvision import models

from prunebench.channels import Plan, slim, trace, verify
from prunebench.errors import ConfigError
from prunebench.models.ghostnet import Ghostnet
from prunebench.models.mobilenet import MobilenetV1, MobilenetV2, divisible
from prunebench.models.shufflenet import (
    ShufflenetV1,
    ShufflenetV2,
    interleaving,
    rotation,
    transposition,
)
from tests.models.counted import multiply_adds

V1, V2 = MobilenetV1, MobilenetV2
CIFAR, IMAGENET = (3, 32, 32), (3, 224, 224)

#: spec, CIFAR-10 params and MACs, CIFAR-100 params, all as published in the specification
SMALL = [
    (V1(width=1.0, stem="cifar"), 3_217_226, 46_354_432, 3_309_476),
    (V2(width=1.0, stem="cifar"), 2_236_682, 87_976_448, 2_351_972),
    (V2(width=0.5, stem="cifar"), 700_490, 27_969_024, 815_780),
    (V2(width=1.4, stem="cifar"), 4_333_706, 170_073_344, 4_495_076),
    (ShufflenetV1(groups=3, stem="cifar"), 914_338, 42_590_592, 1_000_828),
    (ShufflenetV2(width=1.0, stem="cifar"), 1_263_854, 45_002_112, 1_356_104),
    (ShufflenetV2(width=0.5, stem="cifar"), 352_042, 10_902_016, 444_292),
    (ShufflenetV2(width=2.0, stem="cifar"), 5_365_486, 187_811_200, 5_549_896),
    (Ghostnet(width=1.0, stem="cifar"), 3_914_318, 43_122_752, 4_029_608),
]
LARGE = [
    (V1(width=1.0, stem="imagenet"), 4_231_976, 568_740_352),
    (V1(width=0.75, stem="imagenet"), 2_585_560, 325_400_448),
    (V2(width=1.0, stem="imagenet"), 3_504_872, 300_774_272),
    (ShufflenetV1(groups=3, stem="imagenet"), 1_865_728, 137_460_672),
    (ShufflenetV1(groups=8, stem="imagenet"), 2_434_768, 138_365_952),
    (ShufflenetV2(width=1.0, stem="imagenet"), 2_278_604, 144_907_992),
    (Ghostnet(width=1.0, stem="imagenet"), 5_182_508, 141_150_512),
]
NARROW = [
    V1(width=0.25, stem="cifar"),
    V2(width=0.25, stem="cifar"),
    ShufflenetV1(groups=3, stem="cifar"),
    ShufflenetV1(groups=8, stem="cifar"),
    ShufflenetV2(width=0.5, stem="cifar"),
    Ghostnet(width=0.5, stem="cifar"),
    V1(width=0.25, stem="imagenet"),
    Ghostnet(width=0.5, stem="imagenet"),
]


def counted(spec, shape, classes):
    with torch.device("meta"):
        network = spec.build(shape, classes).eval()
        logits, macs = multiply_adds(network, torch.zeros(1, *shape))
    assert logits.shape == (1, classes)
    return parameters(network), macs


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("spec", "params", "macs", "params_100"), SMALL, ids=str)
def test_cifar_counts_are_golden(spec, params, macs, params_100):
    assert counted(spec, CIFAR, 10) == (params, macs)
    with torch.device("meta"):
        assert parameters(spec.build(CIFAR, 100)) == params_100


@pytest.mark.parametrize(("spec", "params", "macs"), LARGE, ids=str)
def test_imagenet_counts_are_golden(spec, params, macs):
    assert counted(spec, IMAGENET, 1000) == (params, macs)


def lively(spec, images):
    """The network in float64, its batch norms no identities and fit to what they see.

    With arbitrary statistics nothing of the image would be left after a few depthwise layers.
    """
    torch.manual_seed(0)
    network = spec.build(tuple(images.shape[1:]), 10).double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.5, 0.5)
            module.momentum = None
    with torch.no_grad():
        network.train()(images)
        logits = network.eval()(images)
    assert (logits - logits.mean(0)).abs().max() > 0.01 * logits.abs().max()
    return network


@pytest.mark.parametrize("spec", NARROW, ids=str)
def test_random_plans_slim_exactly_and_are_counted(spec):
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    network = lively(spec, images)
    cmap = trace(network, images)
    generator = torch.Generator().manual_seed(1)
    kept = {}
    for group in cmap.groups:
        count = max(
            1, int(group.size * float(torch.empty(1).uniform_(0.3, 1, generator=generator)))
        )
        kept[group.name] = sorted(torch.randperm(group.size, generator=generator)[:count].tolist())
    plan = Plan(kept)
    small = slim(network, cmap, plan)
    assert type(small) is type(network)  # nothing had to be rewritten
    assert verify(network, small, cmap, plan, images) < 1e-9
    assert parameters(small) == cmap.params(plan)
    assert multiply_adds(small, images[:1])[1] == cmap.macs(plan)


@pytest.mark.parametrize("spec", NARROW[:6], ids=str)
def test_every_convolution_can_be_cut(spec):
    network = spec.build((3, 32, 32), 10)
    cmap = trace(network, torch.zeros(1, 3, 32, 32))
    assert len(cmap.frozen) == 1  # the classifier
    assert all(group.size > 1 for group in cmap.groups)


def test_mobilenet_v2_is_torchvisions():
    spec = MobilenetV2(width=1.0, stem="imagenet")
    ours, theirs = spec.build((3, 64, 64), 10).eval(), models.mobilenet_v2(num_classes=10).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))


def test_shufflenet_v2_is_torchvisions():
    spec = ShufflenetV2(width=0.5, stem="imagenet")
    ours = spec.build((3, 64, 64), 10).eval()
    theirs = models.shufflenet_v2_x0_5(num_classes=10).eval()
    left = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert not left.unexpected_keys
    assert all(name.endswith(".index") for name in left.missing_keys)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))


def test_interleaving_takes_a_channel_of_each_half_in_turn():
    assert interleaving(6) == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize(("channels", "groups"), [(60, 3), (12, 4), (8, 1)])
def test_the_published_shuffle_is_the_reshape_and_transposition_of_the_paper(channels, groups):
    x = torch.arange(channels * 2).reshape(1, channels, 1, 2)
    shuffled = x.reshape(1, groups, -1, 1, 2).transpose(1, 2).reshape(x.shape)
    assert torch.equal(x[:, transposition(channels, groups)], shuffled)


def test_the_published_shuffle_is_cut_exactly_where_it_can_be():
    spec = ShufflenetV1(groups=3, stem="cifar", shuffle="transpose")
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    network = lively(spec, images)
    assert parameters(network) == parameters(NARROW[2].build((3, 32, 32), 10))
    cmap = trace(network, images)
    kept = {g.name: list(range(g.size - 1)) or [0] for g in cmap.groups if g.size > 1}
    small = slim(network, cmap, Plan(kept))
    assert verify(network, small, cmap, Plan(kept), images) < 1e-9
    assert parameters(small) == cmap.params(Plan(kept)) < parameters(network)


@pytest.mark.parametrize(("channels", "groups"), [(60, 3), (12, 3), (96, 8), (8, 1), (20, 4)])
def test_rotation_is_a_shuffle_that_mixes_all_groups_alike(channels, groups):
    index = rotation(channels, groups)
    assert sorted(index) == list(range(channels))
    size = channels // groups
    shares = [[0] * groups for _ in range(groups)]
    for place, source in enumerate(index):
        shares[place // size][source // size] += 1
        assert place % size == source % size  # the k-th channels stay the k-th
    flat = [share for row in shares for share in row]
    assert max(flat) - min(flat) <= 1
    transposed = [[0] * groups for _ in range(groups)]
    for place in range(channels):
        transposed[place // size][place % groups] += 1
    assert sorted(flat) == sorted(share for row in transposed for share in row)


@pytest.mark.parametrize(
    ("channels", "by", "expected"),
    [(32, 8, 32), (24, 8, 24), (16 * 0.75, 8, 16), (160 * 0.75, 8, 120), (4, 4, 4), (1, 8, 8),
     (18, 4, 20), (24 * 1.4, 8, 32), (16 * 1.4, 8, 24)],
)  # fmt: skip
def test_widths_are_rounded_to_multiples(channels, by, expected):
    assert divisible(channels, by) == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: V1(width=0, stem="cifar"), "width must be positive, got 0"),
        (lambda: V2(width=1.0, stem="mnist"), "stem must be one of cifar, imagenet; got 'mnist'"),
        (lambda: ShufflenetV1(groups=5, stem="cifar"), "groups must be one of 1, 2, 3, 4, 8"),
        (
            lambda: ShufflenetV1(groups=3, stem="cifar", shuffle="random"),
            "shuffle must be one of rotate, transpose; got 'random'",
        ),
        (lambda: ShufflenetV2(width=0.7, stem="cifar"), "width must be one of 0.5, 1.0, 1.5, 2.0"),
        (lambda: Ghostnet(width=-1, stem="cifar"), "width must be positive"),
        (lambda: NARROW[0].build((3, 8, 8), 10), "at least 16 x 16, got 8 x 8"),
    ],
)
def test_mistakes_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
