"""Learning rates by hand, decay groups by kind, updates compared with a plain formula."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from prunebench.errors import TrainingError
from prunebench.recipes import Phase
from prunebench.training.optim import build_optimizer, learning_rate, parameter_groups

PHASE = Phase(
    epochs=10, batch_size=8, optimizer="sgd", lr=0.1, momentum=0.9, nesterov=False,
    weight_decay=0.01, decay="all", schedule="multistep", milestones=[0.3, 0.8], gamma=0.1,
    warmup_epochs=0.0, label_smoothing=0.0, precision="float32", channels_last=False,
)  # fmt: skip


def rates(phase: Phase, steps: int = 2) -> list[float]:
    """The rate of each epoch's first step."""
    return [learning_rate(phase, epoch * steps, steps) for epoch in range(phase.epochs)]


def test_constant() -> None:
    assert rates(replace(PHASE, schedule="constant")) == [0.1] * 10


def test_multistep_changes_at_the_exact_epoch() -> None:
    assert rates(PHASE) == pytest.approx([0.1] * 3 + [0.01] * 5 + [0.001] * 2)
    # the last step before the milestone still has the old rate
    assert learning_rate(PHASE, 5, 2) == 0.1
    assert learning_rate(PHASE, 6, 2) == pytest.approx(0.01)


def test_the_schedule_moves_as_often_as_it_is_told() -> None:
    by_step = replace(PHASE, schedule_by="iteration", milestones=[0.325])
    assert learning_rate(by_step, 6, 2) == 0.1
    assert learning_rate(by_step, 7, 2) == pytest.approx(0.01)  # in the middle of an epoch
    cosine = replace(PHASE, schedule="cosine", epochs=4, warmup_epochs=0.5, schedule_by="epoch")
    got = [learning_rate(cosine, step, 4) for step in range(16)]
    assert got[:4] == pytest.approx([0.05, 0.1, 0.1, 0.1])
    for epoch in (1, 2, 3):
        expected = 0.05 * (1 + math.cos(math.pi * (4 * epoch - 2) / 14))
        assert got[4 * epoch : 4 * epoch + 4] == pytest.approx([expected] * 4)


def test_foad_drops_from_epoch_80_and_from_120_counted_from_1() -> None:
    phase = replace(PHASE, epochs=160, milestones=[0.49375, 0.74375])
    by_epoch = dict(enumerate(rates(phase), start=1))
    assert [by_epoch[e] for e in (1, 79, 80, 119, 120, 160)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )


def test_step_repeats_its_one_fraction() -> None:
    phase = replace(PHASE, schedule="step", milestones=[0.3], gamma=0.5)
    assert rates(phase) == pytest.approx([0.1] * 3 + [0.05] * 3 + [0.025] * 3 + [0.0125])
    fifth = replace(PHASE, schedule="step", milestones=[0.2], gamma=0.5)
    assert rates(fifth)[-1] == pytest.approx(0.1 / 16)


def test_the_first_epoch_of_a_short_phase_has_the_full_rate() -> None:
    assert rates(replace(PHASE, epochs=1)) == [0.1]


def test_cosine_by_hand() -> None:
    phase = replace(PHASE, epochs=4, schedule="cosine")
    got = [learning_rate(phase, step, 1) for step in range(4)]
    root = math.sqrt(0.5)
    assert got == pytest.approx([0.1, 0.05 * (1 + root), 0.05, 0.05 * (1 - root)])


def test_warm_up_rises_step_by_step_and_cosine_starts_after_it() -> None:
    phase = replace(PHASE, epochs=3, schedule="cosine", warmup_epochs=1.0)
    got = [learning_rate(phase, step, 4) for step in range(12)]
    assert got[:5] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    assert got[8] == pytest.approx(0.05)
    half = replace(PHASE, warmup_epochs=0.5)
    assert [learning_rate(half, step, 4) for step in range(3)] == pytest.approx([0.05, 0.1, 0.1])


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4), nn.Flatten(), nn.Linear(4, 2)
    )


def shapes(group: dict[str, object]) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in group["params"]]  # type: ignore[attr-defined]


def test_decay_all_is_one_group_of_everything_trainable() -> None:
    net = network()
    (group,) = parameter_groups(net, PHASE)
    assert len(group["params"]) == 7
    assert group["weight_decay"] == 0.01
    net[0].weight.requires_grad_(False)
    assert len(parameter_groups(net, PHASE)[0]["params"]) == 6
    with pytest.raises(TrainingError, match="no trainable parameter"):
        parameter_groups(net.requires_grad_(False), PHASE)


def test_biases_learn_at_a_rate_of_their_own() -> None:
    net, phase = network(), replace(PHASE, decay="weights", bias_rate=2.0, lr=0.5)
    found = {
        id(weight): (group["weight_decay"], group["rate"])
        for group in parameter_groups(net, phase)
        for weight in group["params"]
    }
    for name, weight in net.named_parameters():
        own = 2.0 if name.endswith("bias") else 1.0
        assert found[id(weight)] == (0.01 if weight.dim() > 1 else 0.0, own), name


def test_decay_weights_spares_biases_norms_and_slopes() -> None:
    decayed, spared = parameter_groups(network(), replace(PHASE, decay="weights"))
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.01, 0.0)
    assert shapes(decayed) == [(4, 3, 3, 3), (2, 4)]
    assert shapes(spared) == [(4,), (4,), (4,), (4,), (2,)]
    (only,) = parameter_groups(nn.BatchNorm2d(3), replace(PHASE, decay="weights"))
    assert only["weight_decay"] == 0.0


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_moves_by_the_formula(nesterov: bool) -> None:
    layer = nn.Linear(1, 1, bias=False).double()
    weight, velocity = layer.weight.item(), None
    optimizer = build_optimizer(layer, replace(PHASE, nesterov=nesterov))
    for gradient in (1.0, -0.5, 0.25):
        layer.weight.grad = torch.full((1, 1), gradient, dtype=torch.float64)
        optimizer.step()
        pull = gradient + 0.01 * weight
        velocity = pull if velocity is None else 0.9 * velocity + pull
        weight -= 0.1 * (pull + 0.9 * velocity if nesterov else velocity)
        assert layer.weight.item() == pytest.approx(weight, abs=1e-12)


def test_adam_couples_decay_and_adamw_does_not() -> None:
    moved = {}
    for name in ("adam", "adamw"):
        layer = nn.Linear(1, 1, bias=False).double()
        nn.init.ones_(layer.weight)
        layer.weight.grad = torch.zeros(1, 1, dtype=torch.float64)
        build_optimizer(layer, replace(PHASE, optimizer=name)).step()
        moved[name] = layer.weight.item()
    # adam turns the decay alone into a step of full length, adamw shrinks by lr * decay
    assert moved["adam"] == pytest.approx(0.9, abs=1e-5)
    assert moved["adamw"] == pytest.approx(1 - 0.1 * 0.01)


def test_parameters_may_decay_by_name() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.PReLU(), nn.Conv2d(4, 4, 1), nn.Linear(4, 2))
    phase = replace(PHASE, decay_of={"3.*": 4e-4, "1.weight": 0.0, "*.bias": 0.5})
    by = {
        id(parameter): group["weight_decay"]
        for group in parameter_groups(net, phase)
        for parameter in group["params"]
    }
    found = {name: by[id(parameter)] for name, parameter in net.named_parameters()}
    assert found == {
        "0.weight": 0.01, "0.bias": 0.5, "1.weight": 0.0, "2.weight": 0.01, "2.bias": 0.5,
        "3.weight": 4e-4, "3.bias": 4e-4,
    }  # fmt: skip
    with pytest.raises(TrainingError, match=r"decay_of: no parameter is called 'head\.\*'; they"):
        parameter_groups(net, replace(PHASE, decay_of={"head.*": 0.0}))
