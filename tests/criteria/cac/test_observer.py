"""CAC in the training loop: what it removes, how it resumes, what it refuses."""

from collections.abc import Mapping
from dataclasses import asdict, replace
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
from prunebench.criteria.cac.removal import Estimates, Removal
from prunebench.datasets import Arrays, Data
from prunebench.errors import ConfigError, PruningError
from prunebench.models.resnet import Resnet
from prunebench.options import option
from prunebench.recipes import Phase
from prunebench.run.step import dense_counts
from prunebench.training.loop import train
from prunebench.training.resident import ResidentSplit
from prunebench.training.stage import Stage

CPU = torch.device("cpu")
PHASE = Phase(
    epochs=3, batch_size=16, optimizer="sgd", lr=0.05, momentum=0.9, nesterov=False,
    weight_decay=1e-4, decay="weights", schedule="constant", milestones=[], gamma=0.1,
    warmup_epochs=0.0, label_smoothing=0.0, precision="float32", channels_last=True,
)  # fmt: skip
QUICK = {"n_min": 2, "start": 0.2, "end": 0.8, "prune_every": 2, "max_step": 0.2, "ema_epochs": 1.0}


class Killed(BaseException):
    """Stands for SIGKILL."""


def split(n: int) -> Arrays:
    """Images whose label shows as a bright quarter."""
    source = torch.Generator().manual_seed(n)
    images = torch.randint(0, 120, (n, 3, 8, 8), dtype=torch.uint8, generator=source)
    labels = torch.randint(0, 4, (n,), generator=source)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, label // 2 * 4 :, label % 2 * 4 :][:, :4, :4] += 100
    return Arrays(images, labels)


def data() -> Data:
    return Data(
        name="quarters", train=split(90), val=split(20), test=split(1), classes=4,
        mean=(0.3,) * 3, std=(0.25,) * 3, crop_padding=0, flip=False,
    )  # fmt: skip


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(192, 20), nn.ReLU(), nn.Linear(20, 18), nn.ReLU(), nn.Linear(18, 4)
    )  # fmt: skip


def resnet(width: float = 0.25) -> nn.Module:
    torch.manual_seed(0)
    return Resnet(depth=8, shortcut="A", width=width).build((3, 8, 8), 4)


def two_blocks() -> nn.Module:
    """Of three: the input of one goes past it as it is, that of the other at half the size."""
    network: Any = resnet(0.5)
    network.layer3, network.linear = nn.Identity(), nn.Linear(16, 4)
    return network


def work(
    network: nn.Module, budget: Budget, rows: list[Mapping[str, Any]], **images: Any
) -> Assignment:
    cmap = trace(network, torch.zeros(1, 3, 8, 8))
    return Assignment(
        cmap=cmap, groups=budget.select(cmap), limits=budget.limits(cmap, dense_counts(cmap)),
        floors=budget.floors(cmap), seed=7, epochs=PHASE.epochs, steps=6, images=90,
        log=rows.append, **images,
    )  # fmt: skip


def cac(**changes: Any) -> Any:
    return option("criterion", "cac", TrainingCriterion, **{**QUICK, **changes})


def both(**changes: Any) -> Any:
    values = {"macs": 0.5, "params": 0.5, "scope": "all", "allocation": "global", **changes}
    return option("budget", "macs_params", Budget, **values)


def trained(network: nn.Module, observer: Any, checkpoint: Checkpoint | None = None) -> list[Any]:
    stage = Stage(name="pruning", seed=7, device=CPU, checkpoint=checkpoint, observers=[observer])
    result = train(network, data(), PHASE, stage)
    history = [{**asdict(record), "seconds": 0} for record in result.history]
    return [history, [value.tolist() for value in network.state_dict().values()], observer.plan()]


@pytest.mark.parametrize("build", [mlp, two_blocks])
@pytest.mark.parametrize("estimator", ["igg_soft", "igg_ce", "acc_diff"])
def test_both_limits_are_met_and_the_masked_network_is_the_slim_one(build, estimator):
    network, rows = build(), []
    criterion = cac(estimator=estimator)
    assignment = work(network, both(), rows)
    observer = criterion.observer(assignment)
    observer.start(network, torch.optim.SGD(network.parameters(), 0.1))
    seen = network.eval()(torch.zeros(2, 3, 8, 8))
    assert observer.factors.gates is None  # no gates in eval
    observer.finished()
    assert torch.equal(seen, network(torch.zeros(2, 3, 8, 8)))
    trained(network, observer)
    plan = observer.plan()
    for limit in assignment.limits:
        assert limit.amount(plan) <= limit.target
    counts = [sum(row["kept"].values()) for row in rows]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) > 2  # little by little
    assert [row["gates"] for row in rows] == [True] * (len(rows) - 1) + [False]
    images = torch.randn(5, 3, 8, 8)
    network.eval()
    small = slim(network, assignment.cmap, plan)(images)
    observer.factors.attach(network)
    torch.testing.assert_close(network(images), small, rtol=1e-4, atol=1e-5)


def apart(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images that are trained on nowhere, normalised, and their labels."""
    return ResidentSplit(data(), split(count), device=CPU).sample(count, seed=0)


@pytest.mark.parametrize(
    "changes", [{}, {"scope": "batch"}, {"evidence": 1.64, "holdout": 0.3, "recalibrate": 40}]
)
def test_a_killed_pruning_goes_on_bit_for_bit(tmp_path: Path, changes):
    looks = {"held": apart(30), "shown": apart(40)[0]} if "holdout" in changes else {}

    def observer(network: nn.Module, after: int | None = None) -> Any:
        found = cac(**changes).observer(work(network, both(), [], **looks))
        if after is not None:
            whole, calls = found.after_backward, iter(range(after))

            def dying(moment: Moment) -> None:
                if next(calls, None) is None:
                    raise Killed
                whole(moment)

            found.after_backward = dying
        return found

    network = two_blocks()
    expected = trained(network, observer(network))
    checkpoint = Checkpoint(tmp_path / "pruning.pt", 0.0)
    for after in (1, 3, 2, 1, 2, 3):  # since the last death, so after steps 1, 4, 6, 7, 9 and 12
        network = two_blocks()
        with pytest.raises(Killed):
            trained(network, observer(network, after), checkpoint)
    network = two_blocks()
    with torch.no_grad():
        network.linear.weight.add_(1)
    assert trained(network, observer(network), checkpoint) == expected


@pytest.mark.parametrize("scope", ["sample", "batch"])
@pytest.mark.parametrize("estimator", ["igg_soft", "acc_diff"])
def test_a_batch_in_parts_has_the_gates_and_estimates_of_the_whole(estimator, scope):
    """Of an MLP, whose images know nothing of each other."""
    found = []
    for parts in (1, 2, 3):
        network = mlp()
        criterion = cac(estimator=estimator, score="soft", scope=scope, start=0.5)
        observer = criterion.observer(work(network, both(), []))
        phase = replace(PHASE, epochs=1, accumulate=parts)
        stage = Stage(name="pruning", seed=7, device=CPU, observers=[observer])
        train(network, data(), phase, stage)
        found.append({**network.state_dict(), **observer.estimator.sums})
    for parts in found[1:]:
        torch.testing.assert_close(parts, found[0], rtol=1e-4, atol=1e-5)


def test_estimates_are_the_same_where_float16_scales_the_loss():
    found = []
    for precision in ("float32", "fp16"):
        network = mlp()
        observer = cac(start=0.9, end=1.0).observer(work(network, both(), []))
        phase = replace(PHASE, epochs=1, precision=precision)
        stage = Stage(name="pruning", seed=7, device=CPU, observers=[observer])
        train(network, data(), phase, stage)
        found.append(observer.estimator.scores())
    torch.testing.assert_close(found[1], found[0], rtol=0.05, atol=1e-4)
    assert found[0][0].abs().max() > 0.005


def test_a_step_that_float16_cannot_hold_is_no_estimate():
    network = mlp().train()
    observer = cac().observer(work(network, both(), []))
    observer.start(network, torch.optim.SGD(network.parameters(), 0.1))
    for step, grows in enumerate((1.0, torch.inf, 1.0)):
        observer.before_step(0, step, 16)
        (network(torch.randn(16, 3, 8, 8)).sum() * 4 * grows).backward()
        before = {name: value.clone() for name, value in observer.estimator.sums.items()}
        labels = torch.zeros(16, dtype=torch.int64)
        observer.after_backward(Moment(0, step, 6, labels, 16.0, scale=4.0))
        same = [torch.equal(before[name], value) for name, value in observer.estimator.sums.items()]
        assert all(same) == (grows == torch.inf)


def test_a_channel_that_is_gone_stays_gone_and_floors_hold():
    network, rows = mlp(), []
    budget = option("budget", "uniform", Budget, keep=0.5)
    observer = cac(least=0.3).observer(work(network, budget, rows))
    trained(network, observer)
    assert {name: len(kept) for name, kept in observer.plan().kept.items()} == {"1": 10, "3": 9}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"estimator": "igg"}, "estimator must be one of igg_soft, igg_ce, acc_diff"),
        ({"p_uniform": 0.0}, "p_uniform must be positive for estimator=igg_soft"),
        ({"estimator": "acc_diff", "p_off": 0.0}, "p_off must be positive"),
        ({"start": 0.5, "end": 0.5}, "start and end must satisfy"),
        ({"p_off": 0.6, "p_uniform": 0.5}, r"p_off \+ p_uniform must be below 1"),
        ({"max_step": 0.0}, "max_step must lie in"),
        ({"evidence": 0.0}, "evidence must be positive"),
        ({"evidence": 1.64, "scope": "batch"}, "evidence needs scope=sample"),
        ({"holdout": 1.0}, "holdout must lie in"),
        ({"recalibrate": 1}, "recalibrate must be 0 or at least 2 images"),
    ],
)
def test_ranges(changes, message):
    with pytest.raises(ConfigError, match=message):
        cac(**changes)


def test_too_little_to_see_is_refused_before_training():
    with pytest.raises(PruningError, match="would see the rarest channel disturbed 5 times"):
        cac(n_min=50).observer(work(mlp(), both(), []))


def test_a_budget_that_floors_forbid_is_refused():
    network = mlp()
    observer = cac(least=0.9).observer(work(network, both(), []))
    with pytest.raises(PruningError, match=r"criterion=cac ends at .* MACs \(limit"):
        trained(network, observer)


def test_a_budget_that_so_few_removals_miss_is_refused():
    """At the end of the ramp no more go at once than on the way."""
    observer = cac(max_step=0.03).observer(work(mlp(), both(), []))
    with pytest.raises(PruningError, match=r"ends at .* and criterion.max_step=0.03 of all chan"):
        trained(mlp(), observer)


def test_ranking_without_training_is_refused():
    with pytest.raises(PruningError, match="choose schedule=during_training"):
        cac().rank(None)


def test_dearer_channels_go_first_when_ranked_per_cost():
    network = two_blocks()
    removal = Removal(cac(per_cost=True), work(network, both(), []))
    whole = Plan({group.name: range(group.size) for group in removal.work.groups})
    scores = torch.ones(sum(removal.sizes), dtype=torch.float64)
    first = removal.order(scores, whole)[0][0]
    costs = {name: removal.cost(name, whole) for name in whole.kept}
    assert costs[first] == max(costs.values())
    # harmful ones too: the dearest first
    assert removal.order(-scores, whole)[0][0] == first


@pytest.mark.parametrize("evidence", [None, 1.64])
def test_evidence_spares_what_matters_more_than_all_that_went(evidence):
    """Against plain loops over an MLP's 38 channels, several removals one after the other."""
    criterion = cac(evidence=evidence, max_step=0.12, least=0.1, n_min=1)
    removal = Removal(criterion, work(mlp(), both(macs=0.4, params=0.4), []))
    plan = Plan({group.name: range(group.size) for group in removal.work.groups})
    left, threshold, wanted_threshold = set(range(38)), 0.0, 0.0
    source = torch.Generator().manual_seed(3)
    held_back = 0
    for step in (4, 6, 8):
        scores = torch.randn(38, generator=source).abs().double()
        errors = torch.rand(38, generator=source).double() * 0.3
        known = Estimates(scores, torch.ones(38), None if evidence is None else errors)
        before, plan = plan, removal.next_plan(step, plan, known, threshold)
        threshold = removal.raised(threshold, before, plan, scores)
        gone = []
        for channel in sorted(left, key=lambda c: float(scores[c])):
            lower = float(scores[channel]) - 1.64 * float(errors[channel])
            spared = evidence is not None and lower > wanted_threshold
            held_back += spared
            if not spared and len(gone) < 4:  # 0.12 of 38
                gone.append(channel)
        went = [c for c in left if c not in places(plan)]
        assert went == sorted(gone[: len(went)])
        left -= set(went)
        wanted_threshold = max([wanted_threshold, *(float(scores[c]) for c in went)])
        assert threshold == wanted_threshold
    assert (held_back > 0) == (evidence is not None)


def places(plan: Plan) -> set[int]:
    """The channels of an MLP's two groups, side by side."""
    return {*plan.kept["1"], *(20 + channel for channel in plan.kept["3"])}


def test_what_evidence_forbids_is_told():
    removal = Removal(cac(evidence=1.64, n_min=1), work(mlp(), both(), []))
    whole = Plan({group.name: range(group.size) for group in removal.work.groups})
    sure = Estimates(torch.ones(38), torch.ones(38), torch.zeros(38))
    with pytest.raises(PruningError, match=r"38 held back by criterion.evidence=1.64, floors of"):
        removal.next_plan(removal.end, whole, sure, 0.0)


@pytest.mark.parametrize("estimator", ["igg_soft", "igg_ce", "acc_diff"])
def test_estimates_come_from_held_images_one_by_one(estimator):
    """Against a plain forward of the MLP with the gates as factors, an image at a time."""
    network = mlp().train()
    images, labels = apart(8)
    criterion = cac(estimator=estimator, score="soft", p_uniform=0.3, p_off=0.3, holdout=0.1)
    observer = criterion.observer(work(network, both(), [], held=(images, labels)))
    observer.start(network, torch.optim.SGD(network.parameters(), 0.1))
    drawn, numbers = [], observer.gates.numbers
    observer.gates.numbers = lambda rows, *where: drawn.append(where) or numbers(rows, *where)
    observer.before_step(1, 5, 3)
    network(torch.randn(3, 3, 8, 8)).sum().backward()
    before = [weight.grad.clone() for weight in network.parameters()]
    draw = observer.gates.draw
    seen = []
    observer.gates.draw = lambda *where: seen.append(draw(*where)) or seen[-1]
    observer.after_backward(Moment(1, 5, 6, torch.zeros(3, dtype=torch.int64), 3.0))
    assert drawn == [("cac gates", 1, 5), ("cac held", 1, 5)]
    assert all(torch.equal(w.grad, b) for w, b in zip(network.parameters(), before, strict=True))
    (gates,), first = seen, (1 * 6 + 5) % (8 // 3) * 3  # two turns of three images
    sums = {"slope": torch.zeros(38), "on": torch.zeros(38), "off": torch.zeros(38)}
    for row in range(3):
        g = gates.gates[row].clone().requires_grad_()
        x = network[1](images[first + row : first + row + 1].flatten(1)).relu() * g[:20]
        logits = network[5](network[3](x).relu() * g[20:])
        loss = nn.functional.cross_entropy(logits, labels[first + row : first + row + 1])
        loss.backward()
        p = float((-loss.detach()).exp())
        rise = -g.grad * (p if estimator == "igg_soft" else 1.0)
        sums["slope"] += torch.where(gates.uniform[row], rise, 0.0)
        sums["off"] += torch.where(gates.off[row], p, 0.0)
        sums["on"] += torch.where(gates.off[row] | gates.uniform[row], 0.0, p)
    for name in observer.estimator.means:
        found = observer.estimator.sums[f"{name} x"].float()
        torch.testing.assert_close(found, sums[name], rtol=1e-4, atol=1e-6)


def test_validation_sees_undisturbed_statistics_and_training_its_own():
    network = two_blocks()
    shown = torch.randn(300, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    observer = cac(recalibrate=300).observer(work(network, both(), [], shown=shown))
    observer.start(network, torch.optim.SGD(network.parameters(), 0.1))
    observer.factors.alive[0][1] = False  # a channel that is gone stays gone
    observer._refresh()
    network.train()
    for step in range(3):
        observer.before_step(0, step, 16)
        network(torch.randn(16, 3, 8, 8))
    own = {name: value.clone() for name, value in network.named_buffers()}
    inputs = []
    last = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)][-1]
    with observer.validating():
        handle = last.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
        found = last.running_mean.clone(), last.running_var.clone()
        network.train()
        observer.gating = False  # the undisturbed network in batches of 100, for the oracle
        for part in shown.split(100):
            network(part)
        observer.gating = True
        handle.remove()
    means = torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0)
    variances = torch.stack([x.var((0, 2, 3)) for x in inputs]).mean(0)
    torch.testing.assert_close(found[0], means, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1], variances, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[1], own_of(own, network, last), rtol=0.01)
    for name, value in network.named_buffers():
        assert torch.equal(value, own[name]), name
    observer.gating = False
    with observer.validating():
        assert torch.equal(last.running_var, own_of(own, network, last))


def own_of(buffers: dict[str, torch.Tensor], network: nn.Module, norm: nn.Module) -> torch.Tensor:
    name = next(name for name, module in network.named_modules() if module is norm)
    return buffers[f"{name}.running_var"]
