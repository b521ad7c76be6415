"""allocation=decision: the mildest settings of a criterion that reach a target."""

import re

import pytest
import torch
from torch import nn

from prunebench.budgets import Budget
from prunebench.budgets.degrees import BARS
from prunebench.channels import Plan, trace
from prunebench.config.combinations import check_combination
from prunebench.contracts import Dense, Evidence
from prunebench.criteria import Criterion
from prunebench.criteria.foad import Foad
from prunebench.errors import ConfigError, PruningError
from prunebench.options import option
from prunebench.schedules import Schedule


@pytest.fixture(scope="module")
def facts():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 9, 3), nn.ReLU(), nn.Conv2d(9, 12, 1), nn.ReLU(), nn.Conv2d(12, 10, 1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 5),
    ).eval()  # fmt: skip
    cmap = trace(network, torch.zeros(1, 3, 6, 6))
    return Evidence(network, cmap, cmap.groups, torch.randn(6, 3, 6, 6), torch.zeros(6), seed=0)


def dense_of(cmap):
    whole = Plan({})
    return Dense({g.name: g.size for g in cmap.groups}, cmap.macs(whole), cmap.params(whole))


def decided(facts, rule, t, s):
    """What FOAD by itself keeps at fixed settings."""
    ranks = Foad(rule=rule, t=t, s=s, num_samples=6).rank(facts)
    return Plan({name: rank.kept for name, rank in ranks.items()})


def searched(facts, rule, unit, **values):
    ranks = Foad(rule=rule, num_samples=6).rank(facts)
    budget = option("budget", unit, Budget, allocation="decision", floor_share=0.0, **values)
    dense = dense_of(facts.cmap)
    plan = budget.choose(facts.cmap, ranks, dense, share=1.0)
    return plan, budget.settings_found(facts.cmap, ranks, dense, share=1.0)


@pytest.mark.parametrize("rule", ["v2023", "strict"])
@pytest.mark.parametrize("unit", ["macs", "params"])
@pytest.mark.parametrize("keep", [0.9, 0.7, 0.5, 0.3])
def test_no_lower_t_reaches_the_target_and_no_step_of_s_more(facts, rule, unit, keep):
    count = facts.cmap.macs if unit == "macs" else facts.cmap.params
    goal = int(keep * count(Plan({})) + 1e-6)
    plan, found = searched(facts, rule, unit, keep=keep)
    t, s = found["t"], found["s"]
    assert plan == decided(facts, rule, t, s)
    assert count(plan) <= goal
    assert all(count(decided(facts, rule, lower, 0.0)) > goal for lower in range(t))
    assert s == 1 or count(decided(facts, rule, t, s + 1 / BARS)) > goal
    # a finer setting than t alone: it comes nearer, or t alone is all there is
    assert count(plan) >= count(decided(facts, rule, t, 0.0))


def test_the_older_rule_has_no_s_and_is_searched_over_t(facts):
    plan, found = searched(facts, "v2022", "macs", keep=0.5)
    assert plan == decided(facts, "v2022", **found)  # what is told is what one can type


def test_exceptions_and_floors_hold(facts):
    name = facts.groups[1].name
    ranks = Foad(t_at={name: 0}, num_samples=6).rank(facts)
    values = {"allocation": "decision", "keep": 0.6, "floor": 4, "divisor": 2}
    budget = option("budget", "macs", Budget, **values)
    plan = budget.choose(facts.cmap, ranks, dense_of(facts.cmap), share=1.0)
    assert len(plan.kept[name]) == 12
    kept = [len(stays) for stays in plan.kept.values()]
    assert min(kept) >= 4
    assert all(count % 2 == 0 or count == 9 for count in kept)
    assert facts.cmap.macs(plan) <= 0.6 * facts.cmap.macs(Plan({}))


def test_what_no_decision_reaches_is_refused_with_the_least(facts):
    least = facts.cmap.macs(decided(facts, "v2023", 100, 0.0))
    with pytest.raises(PruningError, match=re.escape(f"that can be reached is {least:,} (")):
        searched(facts, "v2023", "macs", keep=0.02)


def test_other_allocations_search_nothing(facts):
    ranks = Foad(num_samples=6).rank(facts)
    for budget in (option("budget", "macs", Budget), option("budget", "uniform", Budget)):
        assert budget.settings_found(facts.cmap, ranks, dense_of(facts.cmap), share=1.0) is None


@pytest.mark.parametrize(
    ("criterion", "schedule", "message"),
    [
        ("l1", "oneshot", "criterion=l1 is none; choose criterion=foad, or allocation=uniform"),
        ("foad", "layerwise", "choose schedule=oneshot or iterative"),
    ],
)
def test_what_has_no_degrees_is_refused(criterion, schedule, message):
    with pytest.raises(ConfigError, match=message):
        check_combination(
            {"criterion": criterion, "budget": "macs", "schedule": schedule},
            criterion=option("criterion", criterion, Criterion),
            budget=option("budget", "macs", Budget, allocation="decision"),
            schedule=option("schedule", schedule, Schedule),
        )
