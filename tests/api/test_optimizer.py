"""`optimizer=`: training continues with the same state, for the channels that are left."""

from typing import Any

import pytest
import torch
from torch import nn, optim
from torch.nn.utils import weight_norm
from torch.testing._internal.two_tensor import TwoTensor

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


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
def test_what_a_repair_adds_is_trained_with_its_layer(normed: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, padding=1), nn.Flatten(),
        nn.Linear(144, 2),
    )  # fmt: skip
    nn.init.normal_(model[1].bias)
    if normed:
        weight_norm(model[2])
    optimizer = optim.SGD(model.named_parameters(), lr=0.1)
    small = prunebench.prune(
        model, X, only="0", repair=ShiftFusion(border="map"), images=X, optimizer=optimizer
    )
    added = dict(small.named_parameters())["2.place_bias"]
    [group] = optimizer.param_groups
    assert group["params"][-1] is added
    assert group["param_names"] == [*dict(model.named_parameters()), "2.place_bias"]


class Outer(optim.Optimizer):
    """Wraps another, whose groups it shares, as SAM and Lookahead do."""

    def __init__(self, weights: Any) -> None:
        super().__init__(weights, {})
        self.inner = optim.SGD(self.param_groups, lr=0.1, momentum=0.9)
        self.param_groups = self.inner.param_groups

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                self.state[weight]["slow"] = weight.detach().clone()
        self.inner.step()


class Around:
    """Is no optimizer itself and has the one inside answer, as ScheduleFreeWrapper does."""

    def __init__(self, weights: Any) -> None:
        self.base = optim.SGD(weights, lr=0.1, momentum=0.9)
        self.param_groups = self.base.param_groups


@pytest.mark.parametrize("kind", [Outer, Around])
def test_what_is_wrapped_goes_along(kind: Any) -> None:
    model = half_dead()
    outer = kind(model.parameters())
    inner = outer.inner if kind is Outer else outer.base
    train(model, outer if kind is Outer else inner)
    before = inner.state[model[0].weight]["momentum_buffer"].clone()
    small = prunebench.prune(model, X, only="0", optimizer=outer)
    assert set(inner.state) == set(small.parameters())
    assert torch.equal(inner.state[small[0].weight]["momentum_buffer"], before[:4])
    if kind is Outer:
        assert set(outer.state) == set(small.parameters())
        assert outer.state[small[3].weight]["slow"].shape == (4, 4, 3, 3)
    inner.state_dict()
    train(small, inner)


def test_an_optimizer_that_the_network_leads_to_goes_along() -> None:
    """As of a LightningModule in training, whose trainer has the optimizers."""

    class Holding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()
            self.optimizer = optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.net(x)
            return found

    model = Holding()
    train(model, model.optimizer)
    small = prunebench.prune(model, X, optimizer=model.optimizer)
    assert set(model.optimizer.state) == set(small.parameters())
    assert model.optimizer.param_groups[0]["params"] == list(small.parameters())
    [note] = small.report.notes
    assert note.startswith("optimizer is an optimizer whose copy in the slim network keeps")


def test_several_optimizers_go_along() -> None:
    model = network()
    weights = list(model.parameters())
    first, second = optim.AdamW(weights[:2]), optim.SGD(weights[2:], lr=0.1, momentum=0.9)
    train(model, first)
    train(model, second)
    small = prunebench.prune(model, X, optimizer=[first, second])
    assert {*first.state, *second.state} == set(small.parameters())
    assert not set(first.state) & set(second.state)


def test_what_is_no_tensor_goes_along_if_no_cut_concerns_it() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    optimizer.state[model[0].weight] = {"betas": (0.9, 0.99), "kind": {"name": "a"}}
    optimizer.state[model[6].bias] = {"sketches": [torch.zeros(2)]}  # of the output: stays whole
    small = prunebench.prune(model, X, optimizer=optimizer)
    assert optimizer.state[small[0].weight] == {"betas": (0.9, 0.99), "kind": {"name": "a"}}
    assert len(optimizer.state[small[6].bias]["sketches"]) == 1

    for value in (
        [torch.zeros(4)],
        object(),
        TwoTensor(torch.zeros(8, 3, 3, 3), torch.ones(8, 3, 3, 3)),
    ):
        odd = optim.SGD(model.parameters(), lr=0.1)
        odd.state[model[0].weight] = {"sketch": value}
        with pytest.raises(
            PruningError, match=f"keeps 'sketch' of 0.weight as {type(value).__name__}"
        ):
            prunebench.prune(model, X, optimizer=odd)


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
