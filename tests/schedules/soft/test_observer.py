"""Soft pruning in the training loop: which filters are zeroed, which return, how it resumes."""

from copy import deepcopy
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from prunebench.budgets import Budget
from prunebench.channels import mask, slim, trace
from prunebench.checkpoints import Checkpoint
from prunebench.contracts import Assignment, Moment
from prunebench.criteria import Criterion
from prunebench.datasets import Arrays, Data
from prunebench.errors import PruningError
from prunebench.models.resnet import Resnet
from prunebench.options import option
from prunebench.recipes import Phase
from prunebench.run.step import dense_counts
from prunebench.schedules.soft import Soft
from prunebench.schedules.soft.observer import SoftObserver
from prunebench.schedules.soft.zeros import ZerosStay
from prunebench.training.loop import train
from prunebench.training.stage import Stage

PHASE = Phase(
    epochs=4, batch_size=16, optimizer="sgd", lr=0.2, momentum=0.9, nesterov=False,
    weight_decay=1e-4, decay="weights", schedule="constant", milestones=[], gamma=0.1,
    warmup_epochs=0.0, label_smoothing=0.0, precision="float32", channels_last=True,
)  # fmt: skip


class Killed(BaseException):
    """Stands for SIGKILL."""


class Net(nn.Module):
    """A stem and a block of ten channels; all with batch norms."""

    def __init__(self):
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.first, self.norm = nn.Conv2d(4, 10, 3, padding=1), nn.BatchNorm2d(10)
        self.second, self.fc = nn.Conv2d(10, 4, 3, padding=1), nn.Linear(4, 4)

    def forward(self, x):
        x = self.stem_norm(self.stem(x)).relu()
        x = (x + self.second(self.norm(self.first(x)).relu())).relu()
        return self.fc(x.mean((2, 3)))


class Untouched(ZerosStay):
    """Takes no gradient away."""

    def after_backward(self, moment):
        pass


def fresh():
    torch.manual_seed(0)
    return Net()


def data():
    def split(n):
        source = torch.Generator().manual_seed(n)
        images = torch.randint(0, 255, (n, 3, 6, 6), dtype=torch.uint8, generator=source)
        return Arrays(images, images[:, 0, 0, 0].long() % 4)

    return Data(
        name="noise", train=split(70), val=split(8), test=split(1), classes=4,
        mean=(0.5,) * 3, std=(0.25,) * 3, crop_padding=0, flip=False,
    )  # fmt: skip


def soft(network, rows, *, criterion="l2", epochs=4, every=1, asked=None, side=6, **budget):
    cmap = trace(network, torch.zeros(1, 3, side, side))
    chosen = option("budget", "uniform", Budget, **{"keep": 0.7, **budget})
    work = Assignment(
        cmap=cmap, groups=chosen.select(cmap), limits=(), floors={}, seed=0, epochs=epochs,
        steps=5, images=70, log=rows.append,
    )  # fmt: skip
    scores = option("criterion", criterion, Criterion)
    schedule = Soft(start="scratch", every=every, **(asked or {}))
    return schedule.observer(scores, chosen, dense_counts(cmap), work)


class Watched(SoftObserver):
    """Keeps a copy of the filters before and after every selection; dies when told to."""

    die_after = None

    def after_step(self, moment):
        if self.die_after == (moment.epoch, moment.step):
            raise Killed
        before = self.network.first.weight.detach().clone()
        over = super().after_step(moment)
        self.seen = [
            *getattr(self, "seen", []),
            (before, self.network.first.weight.detach().clone()),
        ]
        return over


def trained(network, observer, checkpoint=None, phase=PHASE):
    stage = Stage(
        name="pruning",
        seed=3,
        device=torch.device("cpu"),
        checkpoint=checkpoint,
        observers=[observer],
    )
    done = train(network, data(), phase, stage)
    return done, {name: value.clone() for name, value in network.state_dict().items()}


def watched(network, rows, **changes):
    observer = soft(network, rows, **changes)
    observer.__class__ = Watched
    return observer


def test_the_smallest_filters_are_zero_after_every_epoch_and_move_again_in_the_next():
    network, rows = fresh(), []
    observer = watched(network, rows)
    trained(network, observer)
    for step, (before, after) in enumerate(observer.seen, 1):
        zero = (after.flatten(1) == 0).all(1)
        if step % 5:
            assert torch.equal(before, after)
        else:
            smallest = before.flatten(1).norm(dim=1).argsort()[:3]
            assert set(zero.nonzero()[:, 0].tolist()) == set(smallest.tolist())
            assert torch.equal(after[~zero], before[~zero])
        if step % 5 == 1 and step > 1:
            assert not zero.any()  # no gradient is masked
    assert [(row["epoch"], row["zeroed"]) for row in rows] == [(n, 3) for n in (1, 2, 3, 4)]
    zero = (network.first.weight.flatten(1) == 0).all(1)
    kept = observer.plan().kept["first"]
    assert kept == tuple((~zero).nonzero()[:, 0].tolist())
    assert not (network.stem.weight.flatten(1) == 0).all(1).any()  # on the residual stream
    assert (network.norm.weight[zero] != 0).all()  # batch norms go on, as published
    assert (network.norm.bias[zero] != 0).all()
    assert (network.first.bias[zero] != 0).all()


def test_masked_filters_get_no_gradient_until_the_next_selection():
    """FPGM: without momentum and decay they stay zero; all else is trained."""
    network, rows = fresh(), []
    observer = watched(network, rows, asked={"mask_gradients": True})
    trained(network, observer, phase=replace(PHASE, momentum=0.0, nesterov=False))
    chosen = None
    for step, (before, after) in enumerate(observer.seen, 1):
        zero = (before.flatten(1) == 0).all(1)
        assert chosen is None or set(chosen) == set(zero.nonzero()[:, 0].tolist())
        if step % 5 == 0:
            chosen = (after.flatten(1) == 0).all(1).nonzero()[:, 0].tolist()
            assert len(chosen) == 3
    network.first.weight.grad = torch.ones_like(network.first.weight)
    network.first.bias.grad = torch.ones_like(network.first.bias)
    observer.after_backward(None)
    masked = (network.first.weight.grad.flatten(1) == 0).all(1)
    assert masked.nonzero()[:, 0].tolist() == chosen
    assert (network.first.bias.grad == 1).all()


def test_a_selection_before_the_first_epoch_where_asked_for():
    network, rows = fresh(), []
    smallest = network.first.weight.detach().flatten(1).norm(dim=1).argsort()[:3]
    observer = soft(network, rows, asked={"zero_first": True})
    observer.start(network, torch.optim.SGD(network.parameters(), lr=1.0))
    assert (network.first.weight[smallest] == 0).all()
    assert [(row["epoch"], row["zeroed"]) for row in rows] == [(0, 3)]
    network = fresh()
    soft(network, rows).start(network, torch.optim.SGD(network.parameters(), lr=1.0))
    for name, value in fresh().named_parameters():
        assert torch.equal(network.get_parameter(name), value)


def test_tied_layers_are_zeroed_each_by_itself_and_stay():
    network, rows = fresh(), []
    observer = soft(network, rows, asked={"zero_first": True, "tied": True}, rounding="removed")
    norms = {
        name: network.get_submodule(name).weight.detach().flatten(1).norm(dim=1).argsort()
        for name in ("stem", "first", "second")
    }
    observer.start(network, torch.optim.SGD(network.parameters(), lr=1.0))
    for name, count in (("stem", 1), ("first", 3), ("second", 1)):  # int(0.3 C)
        zero = (network.get_submodule(name).weight.flatten(1) == 0).all(1)
        assert set(zero.nonzero()[:, 0].tolist()) == set(norms[name][:count].tolist())
    assert rows[0]["zeroed"] == 5
    assert observer.plan().kept.keys() == {"first"}
    state = observer.state_dict()
    again = soft(network, rows, asked={"tied": True}, rounding="removed")
    again.start(network, torch.optim.SGD(network.parameters(), lr=1.0))
    again.load_state_dict(state)
    assert again.plan() == observer.plan()
    chosen = option("budget", "global_ranking", Budget, keep=0.5)
    again = Soft(start="scratch", every=1, tied=True).observer(
        observer.criterion, chosen, observer.dense, observer.work
    )
    again.start(network, torch.optim.SGD(network.parameters(), lr=1.0))
    again.after_step(Moment(0, 4, 5, torch.empty(0), 8.0))
    assert len(again.plan().kept["first"]) == 5
    assert ((network.stem.weight.flatten(1) == 0).all(1)).sum() == 2  # half of 4


def test_a_layer_that_feeds_several_streams_is_counted_once():
    network, rows = Resnet(depth=14, shortcut="A", width=0.25).build((3, 8, 8), 4), []
    asked = {"zero_first": True, "tied": True}
    observer = soft(network, rows, asked=asked, side=8, rounding="removed")
    observer.start(network, torch.optim.SGD(network.parameters(), lr=1.0))
    convs = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    zero = [int((conv.weight.flatten(1) == 0).all(1).sum()) for conv in convs]
    assert zero == [int(0.3 * conv.out_channels) for conv in convs]
    assert rows[0]["zeroed"] == sum(zero)


@pytest.mark.parametrize("criterion", ["l2", "fpgm"])
def test_of_a_layer_that_feeds_a_stream_in_part_no_filter_is_counted_twice(criterion):
    """With one block per stage, half of the last layer's channels meet only padded zeros."""
    network, rows = Resnet(depth=8, shortcut="A", width=0.5).build((3, 8, 8), 4), []
    asked = {"zero_first": True, "tied": True}
    changes = {"side": 8, "rounding": "removed", "keep": 0.5, "criterion": criterion}
    observer = soft(network, rows, asked=asked, **changes)
    assert {site.module for group in observer.work.groups for site in group.producers} >= {
        "layer3.0.conv2"
    }
    observer.start(network, torch.optim.SGD(network.parameters(), lr=1.0))
    zero = (network.layer3[0].conv2.weight.flatten(1) == 0).all(1)
    assert int(zero.sum()) == 16  # of 32: 8 that are cut, and 8 that feed the stream
    kept = set(observer.plan().kept["layer3.0.conv2"])
    free = [*range(8), *range(24, 32)]
    assert [bool(zero[row]) for row in free] == [place not in kept for place in range(16)]


def test_what_stays_as_zeros_is_still_zero_after_fine_tuning():
    network = fresh()
    with torch.no_grad():
        network.second.weight[1:3] = 0
    before = network.second.weight.detach().clone()
    _, after = trained(deepcopy(network), Soft(start="scratch", every=1, tied=True).tail())
    moved = (after["second.weight"] != before).flatten(1)
    assert moved.all(1).tolist() == [True, False, False, True]
    assert not moved[1:3].any()
    _, alone = trained(deepcopy(network), Untouched())
    assert (alone["second.weight"][1:3] != 0).all()  # so that somebody has to
    assert Soft(start="scratch", every=1).tail() is None


def test_filters_come_back():
    network, rows = fresh(), []
    observer = soft(network, rows)
    observer.start(network, torch.optim.SGD(network.parameters(), lr=1.0))
    nothing = torch.empty(0)
    observer.after_step(Moment(0, 4, 5, nothing, 8.0))
    gone = [c for c in range(10) if c not in observer.plan().kept["first"]]
    with torch.no_grad():
        network.first.weight[gone[:2]] = 5.0
    observer.after_step(Moment(1, 4, 5, nothing, 8.0))
    assert set(gone[:2]) < set(observer.plan().kept["first"])
    assert gone[2] not in observer.plan().kept["first"]
    assert [row["returned"] for row in rows] == [0, 2]
    assert (network.first.weight[gone[:2]] == 5.0).all()


@pytest.mark.parametrize(("shift", "stay"), [(0.0, True), (0.1, False)])
def test_filters_zeroed_before_any_training_stay_zero_in_front_of_norm_and_relu(shift, stay):
    """The norm puts out its shift, at first 0, where the ReLU passes no gradient."""
    network = fresh()
    nn.init.zeros_(network.first.bias)
    nn.init.constant_(network.norm.bias, shift)
    observer = watched(network, [], asked={"zero_first": True})
    trained(network, observer)
    zero = [(before.flatten(1) == 0).all(1) for before, _ in observer.seen]
    assert [int(each.sum()) for each in zero] == [3 if stay else 0] * len(zero)


def test_every_second_epoch_and_always_the_last():
    network, rows = fresh(), []
    observer = soft(network, rows, every=2, epochs=3)
    trained(network, observer, phase=replace(PHASE, epochs=3))
    assert [row["epoch"] for row in rows] == [2, 3]


@cache
def undisturbed():
    network = fresh()
    observer = watched(network, [])
    return observer, *trained(network, observer)


@pytest.mark.parametrize("death", [(0, 2), (0, 4), (1, 0), (1, 4), (3, 4)])
def test_it_resumes_bit_for_bit(tmp_path, death):
    observer, done, expected = undisturbed()
    checkpoint = Checkpoint(tmp_path / "state.pt", 0.0)
    network = fresh()
    dying = watched(network, [])
    dying.die_after = death
    with pytest.raises(Killed):
        trained(network, dying, checkpoint)
    network = fresh()
    again = watched(network, [])
    redone, weights = trained(network, again, checkpoint)
    assert again.plan() == observer.plan()
    assert [r.val_correct for r in redone.history] == [r.val_correct for r in done.history]
    assert all(torch.equal(value, weights[name]) for name, value in expected.items())


def test_a_kill_right_after_the_last_epoch_keeps_the_plan(tmp_path):
    network = fresh()
    observer = soft(network, [])
    checkpoint = Checkpoint(tmp_path / "state.pt", 0.0)
    trained(network, observer, checkpoint)
    network = fresh()
    again = soft(network, [])
    trained(network, again, checkpoint)
    assert again.plan() == observer.plan()


def test_the_cut_is_exact():
    network = fresh()
    observer = soft(network, [])
    trained(network, observer)
    network.eval().double()
    images = torch.randn(3, 3, 6, 6, generator=torch.Generator().manual_seed(0)).double()
    cmap = trace(network, images[:1])
    small = slim(network, cmap, observer.plan())
    assert small.first.weight.shape[0] == 7
    masked = mask(network, cmap, observer.plan())
    with torch.no_grad():
        torch.testing.assert_close(small(images), masked(images), rtol=1e-9, atol=1e-12)
        # what remains of zeroed filters is the constant of their norms, which the cut takes away
        quiet = fresh().eval().double()
        quiet.load_state_dict(network.state_dict())
        gone = [c for c in range(10) if c not in observer.plan().kept["first"]]
        quiet.norm.weight[gone] = 0
        quiet.norm.bias[gone] = 0
        torch.testing.assert_close(quiet(images), masked(images), rtol=1e-9, atol=1e-12)
        assert (network(images) - masked(images)).abs().max() > 1e-6


def test_what_cannot_be_ranked_is_refused_before_any_training():
    network = fresh()
    network.norm = nn.Identity()
    observer = soft(network, [], criterion="slimming")
    before = network.first.weight.detach().clone()
    with pytest.raises(PruningError, match="criterion=slimming needs a norm with a scale behind"):
        trained(network, observer)
    assert torch.equal(network.first.weight, before)
    with pytest.raises(PruningError, match="selects after an epoch, and none has been trained"):
        observer.plan()


def test_filters_that_a_weight_norm_computes_are_not_zeroed():
    network = fresh()
    weight_norm(network.first)
    with pytest.raises(PruningError, match="schedule=soft zeroes filters, and those of first are"):
        soft(network, []).start(network, None)
