"""AOFP in the training loop: what it leaves unchanged, what it removes, how it resumes."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from prunebench.budgets import Budget
from prunebench.channels import Plan, slim, trace
from prunebench.checkpoints import Checkpoint
from prunebench.contracts import Assignment, Moment
from prunebench.criteria import TrainingCriterion
from prunebench.criteria.aofp import observer as observing
from prunebench.datasets import Arrays, Data
from prunebench.errors import ConfigError, PruningError
from prunebench.models.resnet import Resnet
from prunebench.options import option
from prunebench.recipes import Phase
from prunebench.run.step import dense_counts
from prunebench.training.loop import train
from prunebench.training.stage import Stage

CPU = torch.device("cpu")
PHASE = Phase(
    epochs=4, batch_size=16, optimizer="sgd", lr=0.01, momentum=0.9, nesterov=False,
    weight_decay=1e-4, decay="weights", schedule="constant", milestones=[], gamma=0.1,
    warmup_epochs=0.0, label_smoothing=0.0, precision="float32", channels_last=True,
)  # fmt: skip
QUICK = {"draws_per_half": 4, "warmup_steps": 2, "draws_per_step": 2, "theta": 0.2}


class Killed(BaseException):
    """Stands for SIGKILL."""


def split(n: int) -> Arrays:
    source = torch.Generator().manual_seed(n)
    images = torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=source)
    return Arrays(images, torch.randint(0, 4, (n,), generator=source))


def data() -> Data:
    return Data(
        name="noise", train=split(90), val=split(10), test=split(1), classes=4,
        mean=(0.5,) * 3, std=(0.25,) * 3, crop_padding=0, flip=False,
    )  # fmt: skip


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return Resnet(depth=8, shortcut="A", width=0.5).build((3, 8, 8), 4)


def two_blocks() -> nn.Module:
    """Of three: the input of one goes past it as it is, that of the other at half the size."""
    network: Any = resnet()
    network.layer3, network.linear = nn.Identity(), nn.Linear(16, 4)
    return network


def chain(width: int = 8) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
        nn.Conv2d(width, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4),
    )  # fmt: skip


def work(network: nn.Module, budget: Budget, rows: list[Mapping[str, Any]]) -> Assignment:
    cmap = trace(network, torch.zeros(1, 3, 8, 8))
    return Assignment(
        cmap=cmap, groups=budget.select(cmap), limits=budget.limits(cmap, dense_counts(cmap)),
        floors=budget.floors(cmap), seed=7, epochs=PHASE.epochs, steps=6, images=90,
        log=rows.append,
    )  # fmt: skip


def own(**changes: Any) -> Any:
    return option("budget", "own", Budget, **changes)


def observer(network: nn.Module, budget: Any = None, rows: Any = None, **changes: Any) -> Any:
    criterion = option("criterion", "aofp", TrainingCriterion, **{**QUICK, **changes})
    return criterion.observer(work(network, budget or own(), [] if rows is None else rows))


def trained(network: nn.Module, watching: Any, checkpoint: Checkpoint | None = None) -> list[Any]:
    observers = [] if watching is None else [watching]
    stage = Stage(name="pruning", seed=7, device=CPU, checkpoint=checkpoint, observers=observers)
    result = train(network, data(), PHASE, stage)
    history = [{**asdict(record), "seconds": 0} for record in result.history]
    return [history, [value.tolist() for value in network.state_dict().values()]]


@cache
def unwatched(build: Any) -> list[Any]:
    return trained(build(), None)


@pytest.mark.parametrize("bn_mode", ["own", "base"])
@pytest.mark.parametrize("estimator", ["mean", "gram"])
@pytest.mark.parametrize("build", [two_blocks, chain])
def test_scoring_changes_no_bit_of_the_training(build, estimator, bn_mode):
    expected = unwatched(build)
    network, rows = build(), []
    # with theta=0 nothing that answers at all can go
    watching = observer(
        network, rows=rows, theta=0.0, estimator=estimator, confirm=1, bn_mode=bn_mode
    )
    assert trained(network, watching) == expected
    assert len(rows) >= 4  # it did score
    assert watching.plan() == Plan(
        {edge.group.name: range(edge.group.size) for edge in watching.edges}
    )
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_the_masked_network_is_the_slim_one_and_masked_channels_learn_nothing():
    network = two_blocks()
    watching = observer(network, theta=0.5)
    trained(network, watching)
    plan = watching.plan()
    assert any(len(kept) < 8 for kept in plan.kept.values())
    images = torch.randn(5, 3, 8, 8)
    network.eval()
    small = slim(network, watching.work.cmap, plan)(images)
    watching.factors.attach(network)
    torch.testing.assert_close(network(images), small, rtol=1e-4, atol=1e-5)


def test_dead_filters_are_the_only_ones_that_go_at_theta_zero():
    network = chain()
    with torch.no_grad():
        for dead in (2, 5):
            network[1].weight[dead] = 0
            network[1].bias[dead] = -1
    watching = observer(network, theta=0.0, strict=False)
    # a search set of dead filters alone is found by halving
    trained(network, watching)
    gone = set(range(8)) - set(watching.plan().kept["0"])
    assert gone
    assert gone <= {2, 5}


@pytest.mark.parametrize(("strict", "goes"), [(True, False), (False, True)])
@pytest.mark.parametrize("estimator", ["mean", "gram"])
def test_a_damage_of_just_theta_is_too_much_only_if_strict(strict, goes, estimator):
    network = chain()
    with torch.no_grad():  # no filter answers, so that no damage is above 0
        network[1].weight.zero_()
        network[1].bias.fill_(-1)
    watching = observer(network, theta=0.0, strict=strict, estimator=estimator, confirm=1)
    watching.start(network, torch.optim.SGD(network.parameters(), lr=1e-9))
    network.train()
    for step in range(40):
        watching.before_step(0, step, 8)
        network(torch.randn(8, 3, 8, 8))
        watching.after_step(Moment(0, step, 100, torch.zeros(8, dtype=torch.int64), 8.0))
    watching.finished()
    assert (len(watching.plan().kept["0"]) < 8) is goes


def test_each_layer_counts_its_halves_draws_and_time():
    network, rows = two_blocks(), []
    watching = observer(network, rows=rows, score_samples=5, draws_per_half=6)
    trained(network, watching)
    counts = watching.counts()
    assert {*counts} == {edge.group.name for edge in watching.edges}
    for name, found in counts.items():
        own = [row for row in rows if row["stage"].startswith(f"aofp-{name}-")]
        assert found["halves"] == len(own)
        assert found["passed"] == sum(row["passed"] for row in own)
        assert found["least_draws"] == min(row["least_draws"] for row in own)
        assert all(0 < row["seconds"] < 60 for row in own)
        assert all(row["least_draws"] <= 6 * row["granularity"] / row["searched"] for row in own)
        assert abs(found["milliseconds"] - 1000 * sum(row["seconds"] for row in own)) <= len(own)


@pytest.mark.parametrize("width", [1, 2, 3, 8])
def test_with_no_threshold_every_half_halves_down_to_the_floor(width):
    network, rows = chain(width), []
    watching = observer(network, rows=rows, theta=1e9)
    trained(network, watching)
    widths = [row["width"] for row in rows if row["stage"].startswith("aofp-0")]
    # a layer of one channel is looked at once and frozen
    assert widths == {1: [1], 2: [1], 3: [2, 1], 8: [4, 2, 1]}[width]
    assert {name: len(kept) for name, kept in watching.plan().kept.items()} == {"0": 1, "3": 1}
    kept = observer(network, own(floor=min(3, width)), theta=1e9)
    trained(network, kept)
    assert len(kept.plan().kept["0"]) == min(3, width)


def test_layers_that_fail_are_frozen_and_end_the_training_or_are_tried_again():
    network, rows = chain(), []
    frozen = observer(network, rows=rows, theta=0.0, on_fail="freeze", stagger=False)
    history = trained(network, frozen)[0]
    # 8 -> 4 -> 2 -> 1 candidates: three halves of two steps, after two steps of warm-up
    assert [row["searched"] for row in rows if row["stage"].startswith("aofp-0")] == [8, 4, 2]
    assert rows[-1]["frozen"]
    assert sum(record["seen"] for record in history) == 90 + 2 * 16
    rows.clear()
    trained(chain(), observer(chain(), rows=rows, theta=0.0, stagger=False))
    searched = [row["searched"] for row in rows if row["stage"].startswith("aofp-0")]
    assert searched == [8, 4, 2] * 3 + [8, 4]


def test_the_limit_ends_it_within_one_move():
    network, rows = two_blocks(), []
    budget = option("budget", "macs", Budget, keep=0.9)
    watching = observer(network, budget, rows, theta=1e9)
    trained(network, watching)
    [limit] = watching.work.limits
    macs = [row[limit.unit] for row in rows if row.get("passed")]
    assert macs[-1] <= limit.target
    assert all(count > limit.target for count in macs[:-1])
    assert limit.amount(watching.plan()) == macs[-1]


def test_what_is_committed_with_confirmation_really_harms_no_more_than_theta():
    for estimator in ("mean", "ridge", "gram"):
        network, rows = two_blocks(), []
        watching = observer(
            network, rows=rows, theta=0.1, estimator=estimator, confirm=2, gram_batches=2
        )
        trained(network, watching)
        went = [row for row in rows if row.get("confirmed") and row["passed"]]
        assert went, estimator
        assert all(row["damage"] <= 0.1 for row in went)
        narrower = [row for row in rows if row.get("passed") and not row["confirmed"]]
        # without the confirmation nothing goes: widths change in confirmed rows only
        assert len(narrower) >= len(went)


@pytest.mark.parametrize(("theta", "most"), [(0.03, 1), (0.15, 2)])
@pytest.mark.parametrize("estimator", ["mean", "gram"])
def test_duplicates_go_together_only_where_both_of_them_may(estimator, theta, most):
    """Channels 0 and 1 say the same: either alone harms little, both together four times that."""
    network = chain()
    first, norm, reader = network[0], network[1], network[3]
    with torch.no_grad():
        first.weight[1], first.bias[1] = first.weight[0], first.bias[0]
        reader.weight[:, 1] = reader.weight[:, 0]
        reader.weight[:, :2] *= 0.5
        reader.weight[:, 2:] *= 2
    watching = observer(network, theta=theta, estimator=estimator, confirm=2, draws_per_half=32)
    together, step = [], watching.after_step

    def watch(moment: Moment) -> bool:
        before = watching.searches[0].alive.clone()
        over = step(moment)
        together.append(int((before & ~watching.searches[0].alive)[:2].sum()))
        return bool(over)

    watching.after_step = watch
    stage = Stage(name="pruning", seed=7, device=CPU, checkpoint=None, observers=[watching])
    train(network, data(), replace(PHASE, lr=1e-9, epochs=20), stage)
    assert torch.equal(norm.weight[0], norm.weight[1])
    assert max(together) == most


@pytest.mark.parametrize(
    "changes",
    [{}, {"estimator": "gram", "confirm": 1, "gram_batches": 2}, {"score_every": 2, "theta": 0.05}],
    ids=["mean", "gram", "every-second"],
)
def test_a_killed_search_goes_on_bit_for_bit_in_the_middle_of_a_half(tmp_path: Path, changes):
    def dying(network: nn.Module, after: int) -> Any:
        found, calls = observer(network, **changes), iter(range(after))

        def kill(moment: Moment) -> None:
            if next(calls, None) is None:
                raise Killed

        found.after_backward = kill
        return found

    network = two_blocks()
    first = observer(network, **changes)
    expected = [*trained(network, first), first.plan()]
    checkpoint = Checkpoint(tmp_path / "search.pt", 0.0)
    for after in (2, 1, 6):  # since the last death, so after steps 2, 3 and 9
        network = two_blocks()
        with pytest.raises(Killed):
            trained(network, dying(network, after), checkpoint)
    network = two_blocks()
    with torch.no_grad():
        network.linear.weight.add_(1)
    again = observer(network, **changes)
    assert [*trained(network, again, checkpoint), again.plan()] == expected


def test_what_changes_the_work_of_a_step_tells_it_apart():
    network, kinds, live = chain(), [], []
    watching = observer(network, draws_per_half=12, stagger=False)
    watching.start(network, torch.optim.SGD(network.parameters(), lr=1e-9))
    first, second = watching.searches

    def begin(step):
        watching.before_step(0, step, 8)
        kinds.append(watching.repeats(0, step, 6))

    for step in range(4):  # draws begin at the third
        begin(step)
    second.narrow(torch.arange(3))
    begin(4)
    for channel in (2, 3):  # of what the first consumer gives
        second.alive[channel] = False
        watching.factors.refresh()
        watching._live_outputs()
        kinds.append(watching.repeats(0, 4, 6))
        live.append(watching.live[0])
    second.frozen = True
    begin(5)
    begin(6)
    first.narrow(torch.arange(8))
    begin(7)  # a half begun anew draws as much
    assert [kinds.index(kind) for kind in kinds] == [0, 0, 2, 2, 4, 5, 5, 7, 7, 7]
    assert live[0] is live[1]  # recorded steps read it where it was
    assert live[1].tolist() == [True, True, False, False, True, True]
    assert None not in kinds


def test_draws_that_confirm_are_of_one_batch_each():
    network = chain()
    watching = observer(network, confirm=3, stagger=False)
    watching.start(network, torch.optim.SGD(network.parameters(), lr=1e-9))
    first, second = watching.searches
    first.confirm(torch.tensor([4, 1]))
    draws = []
    for step in range(2, 6):  # of two draws each, unless they are equal
        watching.before_step(0, step, 8)
        draws.append((first.draws, second.draws))
    assert draws == [(1, 2), (2, 4), (3, 4), (3, 4)]


def test_the_step_at_which_a_half_ends_is_like_no_other():
    network = chain()
    watching = observer(network, draws_per_half=5, stagger=False)
    watching.start(network, torch.optim.SGD(network.parameters(), lr=1e-9))
    for step, alone in enumerate([False, False, False, False, True]):  # of 2, 2 and 1 draws
        watching.before_step(0, step, 8)
        assert (watching.repeats(0, step, 6) is None) is alone


def test_layers_take_turns():
    network, rows = two_blocks(), []
    watching = observer(network, rows=rows, theta=0.0, draws_per_half=12, warmup_steps=1)
    trained(network, watching)
    first = {}
    for row in rows:
        if "searched" in row:
            group, _, step = row["stage"].removeprefix("aofp-").rpartition("-")
            first.setdefault(group, int(step))
    # halves of six steps, three layers: one begins after the other
    assert list(first.values()) == [7, 9, 11]


@pytest.mark.parametrize("estimator", ["mean", "gram"])
def test_of_a_batch_in_parts_the_first_is_scored(estimator, monkeypatch):
    network, rows, scored = chain(), [], []
    watching = observer(
        network, rows=rows, theta=0.0, draws_per_half=3, estimator=estimator, gram_batches=2,
        confirm=2, stagger=False,
    )  # fmt: skip
    for name in ("damages", "gram"):
        measure = getattr(observing, name)

        def watch(edge, seen, *rest, measure=measure, **settings):
            scored.append((watching.at, edge.group.name, len(seen[0])))
            return measure(edge, seen, *rest, **settings)

        monkeypatch.setattr(observing, name, watch)
    phase = replace(PHASE, batch_size=15, accumulate=2)  # in parts of 8 and 7
    train(network, data(), phase, Stage(name="pruning", seed=7, device=CPU, observers=[watching]))
    places = [(epoch, step) for epoch in range(4) for step in range(6)][2:]
    assert sorted(scored) == [(at, name, 8) for at in places for name in ("0", "3")]
    # halves of two steps, whatever the estimator: of three draws, or two Gram matrices
    ends = [int(row["stage"].split("-")[-1]) for row in rows if row["stage"].startswith("aofp-0-")]
    assert ends == [*range(4, 25, 2)]


def test_norms_that_see_other_processes_images_are_no_damage():
    """What nobody reads is dropped: only the statistics differ from those of this process."""
    network = chain().train()
    with torch.no_grad():
        network[3].weight.zero_()
        network[3].weight[:, 0] = 1  # all others are read with a weight of 0
    watching = observer(network, theta=1.0, warmup_steps=0, draws_per_step=4)
    watching.start(network, torch.optim.SGD(network.parameters(), 0.1))
    norm = network[4]
    norm.__dict__["forward"] = lambda x: nn.functional.batch_norm(
        x, torch.ones(6), torch.full((6,), 2.0), norm.weight, norm.bias
    )
    search = watching.searches[0]
    search.space = torch.arange(1, 8)
    watching.before_step(0, 0, 6)
    network(torch.randn(6, 3, 8, 8))
    assert search.draws == 4 and search.damages.tolist() == [0] * 4


def test_pruning_in_bf16_and_by_example():
    network = two_blocks()
    watching = observer(network, reduction="example", theta=0.5)
    stage = Stage(name="pruning", seed=7, device=CPU, observers=[watching])
    train(network, data(), replace(PHASE, precision="bf16", epochs=2), stage)
    assert any(len(kept) < 8 for kept in watching.plan().kept.values())


def test_what_cannot_be_reached_is_refused_at_the_start():
    budget = option("budget", "macs", Budget, keep=0.01)
    with pytest.raises(PruningError, match=r"cannot go below [\d,]+ MACs"):
        trained(two_blocks(), observer(two_blocks(), budget))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"theta": -1.0}, "theta must not be negative"),
        ({"estimator": "ridge"}, "confirm must be at least 1 for estimator=ridge"),
        ({"bn_mode": "none"}, "bn_mode must be one of own, base"),
        ({"on_fail": "stop"}, "on_fail must be one of retry, freeze"),
        ({"score_samples": 1}, "score_samples must be at least 2 images"),
        ({"draws_per_half": 0}, "draws_per_half must be at least 1"),
    ],
)
def test_ranges(changes, message):
    with pytest.raises(ConfigError, match=message):
        option("criterion", "aofp", TrainingCriterion, **changes)
