"""CAC's estimators, compared with exact enumeration of all gates of a small score."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from prunebench.criteria import TrainingCriterion
from prunebench.criteria.cac.estimators import Draw, GateGradient, OnOff, Outcome, outcome
from prunebench.criteria.cac.gates import Gates, gates_of
from prunebench.criteria.cac.ramp import cubic, fewest
from prunebench.options import option
from prunebench.reproducibility import seed_for

CPU = torch.device("cpu")
WEIGHTS = torch.tensor([2.0, 1.0, 0.5, 0.25, 0.0, -0.5, 1.5, 1.5], dtype=torch.float64)


def margin(gates: Tensor) -> Tensor:
    """A score of 8 gates: one useless, one harmful, two that stand in for each other."""
    g = gates.double()
    return g @ WEIGHTS - 1.2 * g[:, 6] * g[:, 7] - 1.0


def loss(gates: Tensor) -> Tensor:
    return functional.softplus(-margin(gates))


def exact(score, nodes: list[tuple[float, float]]) -> Tensor:
    """E[s | on] - E[s | off] of each gate, the others drawn from (value, weight) pairs."""
    values = torch.tensor([value for value, _ in nodes], dtype=torch.float64)
    weights = torch.tensor([weight for _, weight in nodes], dtype=torch.float64)
    picks = torch.tensor(list(itertools.product(range(len(nodes)), repeat=7)))
    chance = weights[picks].prod(1)
    found = []
    for gate in range(8):
        ends = []
        for end in (1.0, 0.0):
            fixed = torch.full((len(picks), 1), end, dtype=torch.float64)
            others = values[picks]
            ends.append(chance @ score(torch.cat([others[:, :gate], fixed, others[:, gate:]], 1)))
        found.append(ends[0] - ends[1])
    return torch.stack(found)


def draw(p_uniform: float, p_off: float, rows: int, seed: int = 0) -> Draw:
    chances = torch.tensor([p_uniform, p_off])[:, None].expand(2, 8)
    source = torch.Generator().manual_seed(seed)
    return gates_of(
        torch.rand(2, rows, 8, generator=source), chances, torch.ones(8, dtype=torch.bool)
    )


def feed(estimator, drawn: Draw) -> None:
    """What the observer does at a step, on the small score."""
    gates = drawn.gates.clone().requires_grad_()
    losses = loss(gates)
    losses.mean().backward()
    found = Outcome(losses.detach().float(), margin(drawn.gates) > 0)
    estimator.add(drawn, gates.grad * len(losses), found)


def gauss(p_uniform: float, p_off: float) -> list[tuple[float, float]]:
    points, weights = np.polynomial.legendre.leggauss(3)
    inner = [((x + 1) / 2, p_uniform * w / 2) for x, w in zip(points, weights, strict=True)]
    return [(0.0, p_off), (1.0, 1 - p_off - p_uniform), *inner]


@pytest.mark.parametrize("kind", ["acc", "soft", "ce"])
def test_on_off_is_unbiased_and_as_noisy_as_the_formula_says(kind):
    p_off, rows, runs = 0.2, 4000, 100
    score = {
        "acc": lambda g: (margin(g) > 0).double(),
        "soft": lambda g: (-loss(g)).exp(),
        "ce": lambda g: -loss(g),
    }[kind]
    truth = exact(score, [(0.0, p_off), (1.0, 1 - p_off)])
    errors = []
    for seed in range(runs):
        estimator = OnOff(8, 1.0, CPU, kind=kind)
        feed(estimator, draw(0.0, p_off, rows, seed))
        errors.append(estimator.scores()[0] - truth)
    found = torch.stack(errors)
    variances = []
    drawn = draw(0.0, p_off, 100_000)
    s = score(drawn.gates)
    for gate in range(8):
        off = drawn.off[:, gate]
        variances.append(s[off].var() / (rows * p_off) + s[~off].var() / (rows * (1 - p_off)))
    variance = torch.stack(variances)
    assert (found.mean(0).abs() < 4.5 * (variance / runs).sqrt()).all()
    ratio = found.pow(2).mean(0).div(variance).mean().sqrt()
    assert 0.85 < ratio < 1.15


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize(("p_uniform", "p_off"), [(0.3, 0.0), (0.1, 0.1)])
def test_the_integrated_gradient_is_the_conditional_change(soft, p_uniform, p_off):
    truth = exact(lambda g: (-loss(g)).exp() if soft else -loss(g), gauss(p_uniform, p_off))
    estimator = GateGradient(8, 1.0, CPU, soft=soft)
    drawn = draw(p_uniform, p_off, 400_000)
    feed(estimator, drawn)
    found, seen = estimator.scores()
    assert torch.equal(seen, drawn.uniform.sum(0).double())
    # the derivative of this score is at most 2.0 in size and its spread below 0.6
    assert ((found - truth).abs() < 4.5 * 0.6 / seen.sqrt()).all()
    assert found[4] == 0  # the useless gate, exactly
    assert found[5] < 0  # the harmful one


def test_the_integrated_gradient_is_less_noisy_than_on_and_off_at_equal_samples():
    def spread(p_uniform, p_off, make):
        runs = []
        for seed in range(30):
            estimator = make()
            feed(estimator, draw(p_uniform, p_off, 640, seed))
            runs.append(estimator.scores()[0])
        return torch.stack(runs).std(0).mean()

    gradient = spread(0.1, 0.0, lambda: GateGradient(8, 1.0, CPU, soft=True))
    assert gradient < 0.6 * spread(0.0, 0.1, lambda: OnOff(8, 1.0, CPU, kind="soft"))


def test_sums_fade_by_the_decay():
    estimator = GateGradient(2, 0.5, CPU, soft=False)
    drawn = Draw(torch.tensor([[0.5, 1.0]]), torch.tensor([[True, False]]), torch.zeros(1, 2) > 0)
    nothing = Outcome(torch.zeros(1), torch.ones(1, dtype=torch.bool))
    for slope in (-4.0, -1.0):
        estimator.add(drawn, torch.tensor([[slope, 7.0]]), nothing)
    found, seen = estimator.scores()
    assert found[0] == (0.5 * 4 + 1) / 1.5
    assert seen.tolist() == [1.5, 0.0]
    assert found[1].isnan()  # nothing known: the observer asks how many were seen


@pytest.mark.parametrize("decay", [1.0, 0.9])
def test_standard_errors_are_those_of_a_weighted_mean(decay):
    """Against plain lists of samples and of what is left of the weight of each."""
    steps, rows = 12, 30
    soft, on_off = GateGradient(8, decay, CPU, soft=True), OnOff(8, decay, CPU, kind="soft")
    samples: dict[str, list[list[tuple[float, float]]]] = {
        name: [[] for _ in range(8)] for name in ("slope", "on", "off")
    }
    for step in range(steps):
        drawn = draw(0.3, 0.3, rows, seed=step)
        gates = drawn.gates.clone().requires_grad_()
        losses = loss(gates)
        losses.sum().backward()
        found = Outcome(losses.detach(), margin(drawn.gates) > 0)
        for estimator in (soft, on_off):
            estimator.add(drawn, gates.grad, found)
        weight, s = decay ** (steps - 1 - step), (-losses.detach()).exp()
        for image, gate in itertools.product(range(rows), range(8)):
            uniform, off = bool(drawn.uniform[image, gate]), bool(drawn.off[image, gate])
            name = "slope" if uniform else "off" if off else "on"
            value = -float(gates.grad[image, gate] * s[image]) if uniform else float(s[image])
            samples[name][gate].append((value, weight))

    def squared_error(pairs: list[tuple[float, float]]) -> float:
        values, weights = np.array(pairs).T
        mean = np.average(values, weights=weights)
        shares = (weights / weights.sum()) ** 2
        unbiased = np.average((values - mean) ** 2, weights=weights) / (1 - shares.sum())
        return float(unbiased * shares.sum())

    wanted = [squared_error(pairs) ** 0.5 for pairs in samples["slope"]]
    assert soft.errors().tolist() == pytest.approx(wanted, rel=1e-5)
    pairs = zip(samples["on"], samples["off"], strict=True)
    wanted = [(squared_error(on) + squared_error(off)) ** 0.5 for on, off in pairs]
    assert on_off.errors().tolist() == pytest.approx(wanted, rel=1e-5)


def test_standard_errors_hold_what_they_promise_and_nothing_seen_is_unsure():
    errors, found = [], []
    for seed in range(60):
        estimator = GateGradient(8, 1.0, CPU, soft=True)
        assert estimator.errors().isinf().all()
        feed(estimator, draw(0.2, 0.1, 500, seed))
        errors.append(estimator.errors())
        found.append(estimator.scores()[0])
    told, seen = torch.stack(errors).mean(0), torch.stack(found).std(0)
    useful = torch.arange(8) != 4  # the useless gate has neither
    assert ((told / seen)[useful] - 1).abs().max() < 0.35
    assert told[4] == 0


def test_outcomes_are_those_of_the_true_class():
    found = outcome(torch.tensor([[0.0, 0.0], [3.0, 0.0]]), torch.tensor([1, 0]))
    assert found.right.tolist() == [False, True]
    assert found.score("soft")[0] == pytest.approx(0.5)
    assert found.score("ce")[1] == pytest.approx(-np.log1p(np.exp(-3)))
    assert found.score("acc").tolist() == [0, 1]


def test_gates_follow_their_law_and_dead_channels_stay_off():
    chances = torch.tensor([[0.1, 0.3], [0.2, 0.0]])
    alive = torch.tensor([True, True])
    numbers = torch.rand(2, 200_000, 2, generator=torch.Generator().manual_seed(1))
    drawn = gates_of(numbers, chances, alive)
    assert drawn.uniform.float().mean(0).tolist() == pytest.approx([0.1, 0.3], abs=0.005)
    assert drawn.off.float().mean(0).tolist() == pytest.approx([0.2, 0.0], abs=0.005)
    assert drawn.gates[drawn.uniform].mean() == pytest.approx(0.5, abs=0.01)
    assert (drawn.gates[drawn.off] == 0).all()
    assert (drawn.gates[~drawn.off & ~drawn.uniform] == 1).all()
    gone = gates_of(numbers[:, :100], chances, ~alive)
    assert not gone.gates.any()
    assert not (gone.uniform | gone.off).any()


@pytest.mark.parametrize("scope", ["sample", "batch"])
def test_numbers_of_a_step_come_to_where_those_before_were(scope):
    settings = option("criterion", "cac", TrainingCriterion, scope=scope)
    gates = Gates(settings, [5, 3], seed=7)
    first = {rows: gates.numbers(rows, "what", 0, 0) for rows in (6, 4)}
    before = {rows: numbers.clone() for rows, numbers in first.items()}
    for rows, numbers in first.items():
        again = gates.numbers(rows, "what", 2, 1)
        assert again.data_ptr() == numbers.data_ptr()
        drawn = rows if scope == "sample" else 1
        source = torch.Generator().manual_seed(seed_for(7, "what", 2, 1))
        assert torch.equal(numbers, torch.rand(2, drawn, 8, generator=source).expand(2, rows, 8))
        assert not torch.equal(numbers, before[rows])


def test_streaming_removal_takes_the_useless_first_and_ends_near_the_best_subset():
    weights = torch.tensor([1.5, 0.0, 1.2, 0.9, 0.0, 0.7, 1.0, 0.5], dtype=torch.float64)

    def value(gates: Tensor) -> Tensor:
        return torch.sigmoid(gates.double() @ weights - 1.5)

    subsets = torch.tensor([s for s in itertools.product((0, 1), repeat=8) if sum(s) == 4])
    best = value(subsets).max()
    useless_first = near = 0
    chances = torch.full((2, 8), 0.1)
    for seed in range(20):
        alive = torch.ones(8, dtype=torch.bool)
        source = torch.Generator().manual_seed(seed)
        estimator = GateGradient(8, 1 - 1 / 20, CPU, soft=True)
        gone: list[int] = []
        for step in range(1, 101):
            drawn = gates_of(torch.rand(2, 64, 8, generator=source), chances, alive)
            gates = drawn.gates.clone().requires_grad_()
            losses = -value(gates).log()
            losses.mean().backward()
            estimator.add(drawn, gates.grad * 64, Outcome(losses.detach(), losses > 0))
            if step % 10 == 0:
                ranked = [("a", int(c)) for c in estimator.scores()[0].argsort() if alive[c]]
                removed = int(4 * cubic(step, 20, 80))
                plan, reached = fewest(
                    {"a": alive.nonzero()[:, 0].tolist()}, ranked, {"a": 1},
                    lambda plan, most=8 - removed: len(plan.kept["a"]) <= most,
                )  # fmt: skip
                assert reached
                gone += [c for c in range(8) if alive[c] and c not in plan.kept["a"]]
                alive[gone] = False
        useless_first += set(gone[:2]) == {1, 4}
        near += bool(best - value(alive[None]) < 0.03)
    assert useless_first >= 19
    assert near >= 18
