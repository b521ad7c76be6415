"""Heads of networks for faces: their logits as functions of an angle, and finite gradients."""

import math

import pytest
import torch
from torch import nn

from prunebench.checkpoints import Checkpoint
from prunebench.contracts import Observer
from prunebench.datasets import Arrays, Data
from prunebench.errors import ConfigError
from prunebench.options.files import conf_dir, read_option
from prunebench.recipes import Phase, Recipe
from prunebench.training.heads import (
    Head,
    Headed,
    bare,
    head_weight,
    headed,
    initial_weight,
    without_head,
)
from prunebench.training.loop import train
from prunebench.training.losses import cross_entropy, phase_loss, with_margin
from prunebench.training.optim import parameter_groups
from prunebench.training.stage import Stage

SGD = read_option(conf_dir() / "recipe" / "phase" / "sgd.yaml") | {"precision": "float32"}


def phase(**changes):
    return Phase(**{**SGD, **changes})


MARGINS = ["arcface", "cosface", "am_softmax"]


@pytest.mark.parametrize(
    ("head", "usual", "harder"),
    [
        ("arcface", (64, 0.5), lambda theta, m: math.cos(theta + m)),
        ("cosface", (64, 0.4), lambda theta, m: math.cos(theta) - m),
        ("am_softmax", (30, 0.35), lambda theta, m: math.cos(theta) - m),
    ],
)
def test_the_labels_own_angle_is_made_harder(head, usual, harder):
    angles = torch.tensor([[0.3, 1.2, 2.0], [0.7, 0.1, 2.5]], dtype=torch.float64)
    labels = torch.tensor([0, 2])
    for scale, margin, given in [(*usual, {}), (8, 0.2, {"head_scale": 8.0, "head_margin": 0.2})]:
        expected = scale * angles.cos()
        expected[0, 0] = scale * harder(0.3, margin)
        expected[1, 2] = scale * harder(2.5, margin)
        found = with_margin(angles.cos(), labels, phase(head=head, **given))
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)


def test_arcface_stays_monotone_beyond_pi():
    angles = torch.linspace(0, math.pi, 1001, dtype=torch.float64)[:, None]
    logits = with_margin(angles.cos(), torch.zeros(1001, dtype=torch.int64), phase(head="arcface"))
    assert (logits.diff(dim=0) < 1e-3).all()
    beyond = angles > math.pi - 0.5 + 1e-6
    straight = 64 * (angles.cos() - 0.5 * math.sin(0.5))
    torch.testing.assert_close(logits[beyond].double(), straight[beyond], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("head", MARGINS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_finite_where_angles_are_0_or_pi(head, dtype):
    ends = torch.tensor([1.0, -1.0, 1 - 2**-24, 0.0]).to(dtype)
    cosines = torch.stack([ends, ends.flip(0)], 1).requires_grad_()
    loss = phase_loss(cosines, torch.tensor([0, 0, 1, 1]), phase(head=head))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert cosines.grad.isfinite().all()


@pytest.mark.parametrize("head", [*MARGINS, "softmax"])
@pytest.mark.parametrize("half", [False, True])
def test_embeddings_that_point_along_a_weight_have_finite_gradients(head, half):
    weight = torch.eye(3, 4)
    network = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.eye(4))
    whole = headed(network, weight, phase(head=head))
    images = torch.cat([weight, -weight, torch.zeros(1, 4)])
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        found = whole(images)
        assert found.dtype == torch.float32  # whatever the network computes in
        phase_loss(found, labels, phase(head=head)).backward()
    for parameter in whole.parameters():
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().max() < 1e6


def test_softmax_is_a_last_layer_without_bias():
    weight = initial_weight(5, 3, seed=1)
    images = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    found = Head(weight, cosine=False)(images)
    torch.testing.assert_close(found, images @ weight.T)
    labels = torch.tensor([0, 1, 2, 3])
    plain = cross_entropy(found, labels, smoothing=0.0)
    assert phase_loss(found, labels, phase(head="softmax")) == plain


def test_a_head_leaves_the_network_as_it_is():
    network = nn.Linear(4, 3)
    whole = headed(network, initial_weight(5, 3, seed=1), phase(head="arcface"))
    assert bare(whole) is network
    assert bare(network) is network
    assert head_weight(network) is None
    torch.testing.assert_close(head_weight(whole), initial_weight(5, 3, seed=1), rtol=0, atol=0)
    assert set(without_head(whole, whole.state_dict())) == {"weight", "bias"}
    assert whole(torch.rand(2, 4)).abs().max() <= 1 + 1e-6  # cosines


def test_decay_goes_by_the_names_the_network_has_without_its_head():
    network = nn.Sequential(nn.Linear(4, 3), nn.PReLU(3))
    whole = Headed(network, Head(initial_weight(5, 3, 0), cosine=True))
    own = {"1.weight": 0.0, "head.weight": 0.25}
    groups = parameter_groups(whole, phase(weight_decay=0.5, decay="all", decay_of=own))
    found = {group["weight_decay"]: len(group["params"]) for group in groups}
    assert found == {0.5: 2, 0.0: 1, 0.25: 1}
    kernels = parameter_groups(whole, phase(weight_decay=0.5, decay="weights"))
    assert [len(group["params"]) for group in kernels] == [2, 2]  # the head's are weights, too


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"head": "face"}, "head must be one of softmax, arcface, cosface, am_softmax"),
        ({"head_scale": 3.0}, "head_scale needs a head with a margin"),
        ({"head": "softmax", "head_margin": 0.1}, "head_margin needs a head with a margin"),
        ({"head": "arcface", "head_scale": 0.0}, "head_scale must be positive"),
        ({"head": "arcface", "head_margin": 2.0}, r"head_margin must lie in \[0, 1.5\)"),
    ],
)
def test_ranges(given, why):
    with pytest.raises(ConfigError, match=why):
        phase(**given)


def test_where_no_head_is_named_it_is_arcface():
    plain, cosface = phase(), phase(head="cosface")
    recipe = Recipe(baseline=plain, between=cosface, pruning=plain, finetune=plain).with_heads()
    assert [one.head for one in vars(recipe).values()] == [
        "arcface",
        "cosface",
        "arcface",
        "arcface",
    ]


class Watcher(Observer):
    """An observer that notes which network it was given, and ends the process after some steps."""

    def __init__(self, last: int | None = None):
        self.last, self.steps, self.given = last, 0, None

    def start(self, network, optimizer):
        self.given = network

    def after_step(self, moment):
        self.steps += 1
        if self.steps == self.last:
            raise KeyboardInterrupt
        return False


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_network_and_head_are_trained_together_and_go_on_after_a_kill(ema, tmp_path):
    source = torch.Generator().manual_seed(0)

    def part(count):
        images = torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8, generator=source)
        return Arrays(images, torch.arange(count) % 5)

    data = Data("noise", part(20), part(10), part(1), classes=5, mean=(0.5,) * 3, std=(0.25,) * 3)
    how = phase(epochs=2, batch_size=8, head="arcface", head_scale=8.0, ema=ema)

    def whole():
        torch.manual_seed(3)
        network = nn.Sequential(nn.Flatten(), nn.Linear(48, 6), nn.BatchNorm1d(6))
        return headed(network, initial_weight(5, 6, seed=1), how)

    def trained(watcher, checkpoint=None):
        network = whole()
        stage = Stage(
            name="s", seed=0, device=torch.device("cpu"), checkpoint=checkpoint, observers=[watcher]
        )
        done = train(network, data, how, stage)
        assert watcher.given is network.network
        return network.state_dict(), done

    state, done = trained(Watcher())
    before = whole().state_dict()
    assert all((state[name] != before[name]).any() for name in ("network.1.weight", "head.weight"))
    assert done.best.val_seen == 10
    with pytest.raises(KeyboardInterrupt):
        trained(Watcher(last=4), Checkpoint(tmp_path / "c.pt", 0.0))
    again, _ = trained(Watcher(), Checkpoint(tmp_path / "c.pt", 0.0))
    assert all(torch.equal(again[name], value) for name, value in state.items())
