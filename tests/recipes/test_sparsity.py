"""The penalties, compared with autograd; which parameters they concern; resumption."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from prunebench.checkpoints import Checkpoint
from prunebench.contracts import Moment
from prunebench.datasets import Arrays, Data
from prunebench.errors import ConfigError
from prunebench.models.ghostnet import Ghostnet
from prunebench.models.mobilenet import MobilenetV2
from prunebench.models.shufflenet import ShufflenetV1
from prunebench.recipes import Phase
from prunebench.recipes.sparsity import HINGE_FROM, HINGE_Z, Hinge, Sparsity, candidates, hinges
from prunebench.training.loop import train
from prunebench.training.stage import Stage

PHASE = Phase(
    epochs=10, batch_size=8, optimizer="sgd", lr=0.05, momentum=0.9, nesterov=True,
    weight_decay=1e-3, decay="all", schedule="cosine", milestones=[], gamma=0.1,
    warmup_epochs=0.0, label_smoothing=0.0, precision="float32", channels_last=False,
)  # fmt: skip
LATE = 9


def network(seed=0):
    """Convolution and depthwise convolution with norm and ReLU; a linear norm; a classifier."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 5, 1, bias=False), nn.BatchNorm2d(5),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4),
    )  # fmt: skip
    for norm in (net[1], net[4], net[7]):
        norm.weight.data.normal_()
        norm.bias.data.normal_()
        norm.running_var.uniform_(0.5, 2)
    return net


def penalise(net, phase, epoch, shape=(3, 8, 8)):
    """Adds the penalties at a step of `epoch`, as the training loop does."""
    penalties = Sparsity(phase, shape)
    penalties.start(net, torch.optim.SGD(net.parameters(), lr=1.0))
    penalties.after_backward(Moment(epoch, 0, 1, torch.empty(0), 1.0))


def added(net, phase, epoch=LATE):
    """What the penalties add to the gradients, by parameter."""
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    penalise(net, phase, epoch)
    return {name: parameter.grad - 1 for name, parameter in net.named_parameters()}


def test_l1_pulls_every_scale_towards_zero():
    net = network()
    net[1].weight.data[0] = 0
    found = added(net, replace(PHASE, gamma_l1=0.01), epoch=0)
    for name, gradient in found.items():
        scale = name in ("1.weight", "4.weight", "7.weight")
        expected = 0.01 * net.get_parameter(name).sign() if scale else torch.zeros(())
        torch.testing.assert_close(gradient, expected.expand_as(gradient), atol=1e-6, rtol=0)


def test_l1_pulls_only_what_the_criterion_reads_if_so_asked():
    """The norm without a ReLU behind it is left alone."""
    found = added(network(), replace(PHASE, gamma_l1=0.01, l1_on="read"), epoch=0)
    pulled = {name for name, gradient in found.items() if bool(gradient.any())}
    assert pulled == {"1.weight", "4.weight"}


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.95])
@pytest.mark.parametrize("over", ["group", "network"])
def test_candidates_are_the_lowest_of_each_group_or_of_all(share, over):
    """Against plain sorting, with groups that differ in how low they lie."""
    torch.manual_seed(2)
    sizes = (3, 20, 60)
    groups = []
    for number, size in enumerate(sizes):
        norm = nn.BatchNorm1d(size)
        nn.init.normal_(norm.bias, mean=-number)
        groups.append(Hinge(size, 2.0, [(norm, torch.arange(size))], []))
    z = [[-shift for shift in g.fronts[0][0].bias.tolist()] for g in groups]
    if over == "group":
        wanted = [
            set(sorted(range(len(own)), key=lambda c, own=own: -own[c])[: int(share * len(own))])
            for own in z
        ]
    else:
        open_to_all = []
        for number, own in enumerate(z):
            stays = max(2, -(-5 * len(own) // 100))
            best = sorted(range(len(own)), key=lambda c, own=own: -own[c])
            open_to_all += [(own[c], number, c) for c in best[: len(own) - stays]]
        chosen = sorted(open_to_all, reverse=True)[: int(share * sum(sizes))]
        wanted = [{c for _, at, c in chosen if at == number} for number in range(3)]
    found = candidates(groups, share, over)
    assert [set(mask.nonzero()[:, 0].tolist()) for mask in found] == wanted


def test_the_hinge_is_the_gradient_of_what_candidates_are_above_their_threshold():
    net = network()
    found = added(net, replace(PHASE, gamma_hinge=0.01, hinge_share=0.9))
    front, behind = net[1], net[4]
    pairs = zip(front.weight.tolist(), front.bias.tolist(), strict=True)
    z = [-shift / abs(scale) for scale, shift in pairs]
    chosen = sorted(range(6), key=lambda channel: -z[channel])[:5]
    values = [
        (part.weight.detach().clone().requires_grad_(), part.bias.detach().clone().requires_grad_())
        for part in (front, behind)
    ]
    loss = sum(
        (shift[chosen] + HINGE_Z * scale[chosen].abs()).clamp(min=0).sum()
        for scale, shift in values
    )
    loss.backward()
    assert loss > 0
    for number, (scale, shift) in zip((1, 4), values, strict=True):
        for part, value in (("weight", scale), ("bias", shift)):
            torch.testing.assert_close(
                found[f"{number}.{part}"], 0.01 * value.grad, atol=1e-6, rtol=0
            )
            assert value.grad.abs().max() > 0
    others = {"0.weight", "3.weight", "6.weight", "7.weight", "7.bias", "10.weight", "10.bias"}
    assert all(not found[name].any() for name in others)


def test_the_hinge_waits_and_lets_go_of_what_is_dead():
    phase = replace(PHASE, gamma_hinge=0.01, hinge_share=0.5)
    first = int(HINGE_FROM * PHASE.epochs)
    assert not any(g.any() for g in added(network(), phase, epoch=first - 1).values())
    assert any(g.any() for g in added(network(), phase, epoch=first).values())
    net = network()
    for norm in (net[1], net[4]):
        norm.weight.data.fill_(1.0)
        norm.bias.data.fill_(-2.5)
    assert not any(g.any() for g in added(net, phase).values())


def test_without_penalties_gradients_stay():
    assert not any(g.any() for g in added(network(), PHASE).values())


def test_frozen_norms_are_left_alone():
    net = network()
    phase = replace(PHASE, gamma_l1=0.1, gamma_hinge=0.1, hinge_share=0.5)
    net[1].weight.requires_grad_(False)
    net[1].weight.grad = net[1].bias.grad = None
    penalise(net, phase, LATE)
    assert net[1].weight.grad is None


@pytest.mark.parametrize(
    ("spec", "some", "not_these"),
    [
        (
            MobilenetV2(width=0.5, stem="cifar"),
            [
                ("features.0.1", "features.1.conv.0.1"),
                ("features.2.conv.0.1", "features.2.conv.1.1"),
                ("features.18.1",),
            ],
            ["features.2.conv.3"],
        ),
        (
            Ghostnet(width=0.25, stem="cifar"),
            [("blocks.0.ghost1.primary_conv.1", "blocks.0.ghost1.cheap_operation.1")],
            ["blocks.0.ghost2.primary_conv.1", "blocks.1.bn_dw"],
        ),
        (ShufflenetV1(groups=3, stem="cifar"), [("stage2.0.bn1",)], ["stage2.0.bn2", "bn1"]),
    ],
    ids=["v2", "ghost", "shuffle"],
)
def test_groups_of_the_zoo(spec, some, not_these):
    net = spec.build((3, 32, 32), 10)
    names = {id(module): name for name, module in net.named_modules()}
    found = {
        tuple(names[id(norm)] for norm, _ in [*hinge.fronts, *hinge.behind])
        for hinge in hinges(net, torch.zeros(1, 3, 32, 32))
    }
    assert set(some) <= found
    assert not set(not_these) & {name for group in found for name in group}


def test_channels_that_grouped_convolutions_tie_are_pushed_together():
    net = ShufflenetV1(groups=3, stem="cifar").build((3, 32, 32), 10)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.bias.data.normal_().mul_(3)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    phase = replace(PHASE, gamma_hinge=1.0, hinge_share=0.25)
    penalise(net, phase, LATE, shape=(3, 32, 32))
    norm = net.stage2[1].bn1
    least = norm.bias.detach().view(3, 20).amax(0)  # a class is as alive as its liveliest
    chosen = least.argsort()[:5]
    expected = torch.zeros(3, 20)
    expected[:, chosen] = 1.0
    # no ReLU follows behind the depthwise convolution, so these are pushed to z = 4
    expected *= norm.bias.detach().view(3, 20) > -4
    assert 0 < expected.sum() < 15
    assert torch.equal(norm.bias.grad.view(3, 20), expected)


def data():
    source = torch.Generator().manual_seed(3)

    def split(n):
        images = torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=source)
        return Arrays(images, torch.randint(0, 4, (n,), generator=source))

    return Data(
        name="noise", train=split(30), val=split(8), test=split(1), classes=4,
        mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25),
    )  # fmt: skip


class KilledError(BaseException):
    """Stands for SIGKILL."""


class Killer(Sparsity):
    """The penalties, in a process that ends after so many steps."""

    def __init__(self, phase, steps):
        super().__init__(phase, (3, 8, 8))
        self.left = steps

    def after_backward(self, moment):
        if self.left == 0:
            raise KilledError
        self.left -= 1
        super().after_backward(moment)


def test_a_killed_training_with_penalties_ends_bit_for_bit_where_it_would_have(tmp_path):
    phase = replace(PHASE, epochs=4, gamma_l1=0.01, gamma_hinge=0.02, hinge_share=0.5)
    stage = Stage(name="baseline", seed=5, device=torch.device("cpu"))
    whole, plain = network(), network()
    train(whole, data(), phase, replace(stage, observers=[Killer(phase, -1)]))
    train(plain, data(), replace(phase, gamma_l1=0.0, gamma_hinge=0.0), stage)
    assert not torch.equal(whole[4].weight, plain[4].weight)
    checkpoint = Checkpoint(tmp_path / "c.pt", 0.0)
    for steps, seed in ((7, 0), (3, 77)):  # before the hinge sets in, and after
        killed = replace(stage, checkpoint=checkpoint, observers=[Killer(phase, steps)])
        with pytest.raises(KilledError):
            train(network(seed), data(), phase, killed)
    resumed = network(77)
    left_alone = replace(stage, checkpoint=checkpoint, observers=[Killer(phase, -1)])
    train(resumed, data(), phase, left_alone)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gamma_l1": -1.0}, "gamma_l1 must not be below 0, got -1.0"),
        ({"gamma_hinge": -1.0}, "gamma_hinge must not be below 0, got -1.0"),
        ({"hinge_share": 1.0}, "hinge_share must lie in \\[0, 1\\), got 1.0"),
        ({"gamma_hinge": 0.1}, "gamma_hinge needs a hinge_share above 0"),
    ],
)
def test_ranges(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(PHASE, **changes)


@pytest.mark.parametrize(
    "push", [{"gamma_hinge": 0.01, "hinge_share": 0.5}, {"gamma_l1": 0.01, "l1_on": "read"}]
)
def test_channels_below_zero_are_counted_at_the_end_of_an_epoch(push):
    """Of the first group, whose class is as alive as its liveliest norm in front of a ReLU."""
    rows, net = [], network()
    phase = replace(PHASE, **push)
    penalties = Sparsity(phase, (3, 8, 8), stage="baseline", log=rows.append)
    penalties.start(net, torch.optim.SGD(net.parameters(), lr=1.0))
    penalties.after_step(Moment(3, 0, 2, torch.empty(0), 1.0))
    assert rows == []
    penalties.after_step(Moment(3, 1, 2, torch.empty(0), 1.0))
    z = []
    for hinge in hinges(net, torch.zeros(1, 3, 8, 8)):
        for place in range(hinge.size):
            own = [
                (-norm.bias[i] / norm.weight[i].abs()).item()
                * ((norm.running_var[i] + norm.eps) / norm.running_var[i]).sqrt().item()
                for norm, classes in hinge.fronts
                for i in (classes == place).nonzero()[:, 0].tolist()
            ]
            z.append(min(own))
    expected = {f"z>={level}": sum(value >= level for value in z) for level in (1, 2, 3)}
    assert 0 < expected["z>=1"] < len(z)
    assert rows == [{"stage": "baseline-sparsity", "epoch": 4, "channels": len(z), **expected}]


def test_where_nobody_looks_for_what_the_criterion_reads_nothing_is_counted():
    rows, net = [], network()
    penalties = Sparsity(replace(PHASE, gamma_l1=0.1), (3, 8, 8), log=rows.append)
    penalties.start(net, torch.optim.SGD(net.parameters(), lr=1.0))
    penalties.after_step(Moment(0, 0, 1, torch.empty(0), 1.0))
    assert rows == []
