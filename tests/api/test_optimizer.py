"""`optimizer=`: training goes on where it was, with the channels that are left."""

import pytest
import torch
from torch import nn, optim

import prunebench
from prunebench.errors import ConfigError, PruningError
from prunebench.repairs.shift_fusion import ShiftFusion

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
KINDS = {
    "sgd": lambda weights: optim.SGD(weights, lr=0.1, momentum=0.9),
    "adamw": lambda weights: optim.AdamW(weights, lr=0.01, amsgrad=True),
    "rmsprop": lambda weights: optim.RMSprop(weights, lr=0.01, momentum=0.5, centered=True),
    "adafactor": lambda weights: optim.Adafactor(weights),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(64, 2),
    )  # fmt: skip


def half_dead() -> nn.Sequential:
    """The network with four channels out of whose ReLU nothing comes, and no gradient back."""
    model = network()
    with torch.no_grad():
        model[0].weight[4:].zero_()
        model[1].weight[4:].zero_()
        model[1].bias[4:] = -1.0
    return model


def train(model: nn.Module, optimizer: optim.Optimizer, steps: int = 2) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(X).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", KINDS)
def test_channels_that_stay_train_on_as_if_nothing_had_gone(kind: str) -> None:
    """The cut channels are dead, so that the slim and the whole network have the same gradients."""
    model = half_dead()
    optimizer = KINDS[kind](model.parameters())
    train(model, optimizer)
    small = prunebench.prune(model, X, only="0", optimizer=optimizer)
    assert small.plan.kept == {"0": (0, 1, 2, 3)}
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {
        id(p) for p in small.parameters()
    }
    assert set(optimizer.state) == set(small.parameters())

    twin = half_dead()
    beside = KINDS[kind](twin.parameters())
    train(twin, beside, 4)
    train(small, optimizer)
    if kind != "adafactor":  # whose steps depend on the mean square of the whole weight
        torch.testing.assert_close(small[0].weight, twin[0].weight[:4])
        torch.testing.assert_close(small[3].weight, twin[3].weight[:, :4])
    shapes = {weight.shape for weight in small.parameters()}
    momenta = {v.shape for s in optimizer.state.values() for v in s.values() if v.dim()}
    assert kind == "adafactor" or momenta <= shapes


def test_groups_keep_their_settings_and_schedulers_their_optimizer() -> None:
    model, other = network(), nn.Linear(2, 2)
    optimizer = optim.SGD(
        [
            {"params": [model[0].weight], "lr": 0.5},
            {"params": [*list(model.parameters())[1:], *other.parameters()], "weight_decay": 0.1},
        ],
        lr=0.1,
    )
    scheduler = optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    small = prunebench.prune(model, X, optimizer=optimizer)
    train(small, optimizer, 1)
    scheduler.step()
    first, second = optimizer.param_groups
    assert (first["lr"], second["lr"], second["weight_decay"]) == (0.25, 0.05, 0.1)
    assert first["params"][0] is small[0].weight
    assert second["params"][-1] is other.bias


def test_it_follows_every_step_and_is_as_it_was_if_one_fails() -> None:
    model = network()
    optimizer = optim.Adam(model.parameters())
    train(model, optimizer)
    before = {weight: dict(values) for weight, values in optimizer.state.items()}

    def between(slim: nn.Module) -> None:
        assert set(optimizer.state) == set(slim.parameters())
        train(slim, optimizer)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        prunebench.prune(model, X, steps=2, between=between, optimizer=optimizer)
    assert optimizer.param_groups[0]["params"] == list(model.parameters())
    assert set(optimizer.state) == set(before)
    train(model, optimizer)


def test_what_a_repair_adds_is_trained_with_its_layer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, padding=1), nn.Flatten(),
        nn.Linear(144, 2),
    )  # fmt: skip
    nn.init.normal_(model[1].bias)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    small = prunebench.prune(
        model, X, only="0", repair=ShiftFusion(border="map"), images=X, optimizer=optimizer
    )
    added = dict(small.named_parameters())["2.place_bias"]
    assert any(weight is added for weight in optimizer.param_groups[0]["params"])


def test_optimizers_that_cannot_go_along_are_told() -> None:
    model = network()
    with pytest.raises(ConfigError, match="LBFGS keeps parameters in .*prune without optimizer="):
        prunebench.prune(model, X, optimizer=optim.LBFGS(model.parameters()))
    with pytest.raises(ConfigError, match="holds no parameter of this network"):
        prunebench.prune(model, X, optimizer=optim.SGD(network().parameters(), lr=0.1))
    odd = optim.SGD(model.parameters(), lr=0.1)
    odd.state[model[0].weight] = {"sketch": torch.zeros(5)}
    with pytest.raises(PruningError, match=r"keeps 'sketch' of 0.weight in the shape \[5\]"):
        prunebench.prune(model, X, optimizer=odd)
    assert odd.state[model[0].weight]["sketch"].shape == (5,)
