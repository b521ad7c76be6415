"""Two targets at once, and budgets as limits of pruning during training."""

import pytest
import torch
from torch import nn

from prunebench.budgets import Budget
from prunebench.channels import Plan, trace
from prunebench.contracts import Dense, GroupRank
from prunebench.errors import ConfigError, PruningError
from prunebench.options import option
from prunebench.run.step import dense_counts


@pytest.fixture(scope="module")
def cmap():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 10, 3, bias=False), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 5),
    )  # fmt: skip
    return trace(network, torch.zeros(1, 3, 8, 8))


@pytest.fixture(scope="module")
def dense(cmap) -> Dense:
    return dense_counts(cmap)


def budget(name: str, **changes) -> Budget:
    return option("budget", name, Budget, **changes)


def ranks():
    source = torch.Generator().manual_seed(0)
    return {
        name: GroupRank(torch.rand(size, dtype=torch.float64, generator=source))
        for name, size in (("0", 8), ("2", 10))
    }


@pytest.mark.parametrize("allocation", ["uniform", "global"])
@pytest.mark.parametrize(("macs", "params"), [(0.3, 0.9), (0.9, 0.3), (0.5, 0.5), (1, 1)])
def test_neither_target_is_exceeded_and_the_tighter_one_decides(
    cmap, dense, allocation, macs, params
):
    both = budget("macs_params", macs=macs, params=params, allocation=allocation)
    plan = both.choose(cmap, ranks(), dense, share=1.0)
    assert cmap.macs(plan) <= macs * dense.macs
    assert cmap.params(plan) <= params * dense.params
    singles = [
        budget(name, keep=keep, allocation=allocation).choose(cmap, ranks(), dense, share=1.0)
        for name, keep in (("macs", macs), ("params", params))
    ]
    assert plan in singles


def test_counts_may_be_given_instead_of_fractions(cmap, dense):
    both = budget("macs_params", macs=float(dense.macs // 2), params=1.0)
    first, second = both.limits(cmap, dense)
    assert (first.unit, first.target) == ("MACs", dense.macs // 2)
    assert (second.unit, second.target) == ("parameters", dense.params)
    assert first.amount(Plan({})) == dense.macs
    with pytest.raises(PruningError, match=r"exceeds the [\d,]+ MACs of the dense network"):
        budget("macs_params", macs=1e9).limits(cmap, dense)
    with pytest.raises(ConfigError, match="params must be positive"):
        budget("macs_params", params=0.0)


def test_channel_budgets_as_limits(cmap, dense):
    [limit] = budget("uniform", keep=0.5).limits(cmap, dense)
    assert (limit.unit, limit.target) == ("channels", 4 + 5)
    assert limit.amount(Plan({"0": (1, 2, 3)})) == 3 + 10
    assert budget("uniform", keep=0.5).floors(cmap) == {"0": 4, "2": 5}
    [limit] = budget("global_ranking", keep=0.5).limits(cmap, dense)
    assert limit.target == 9
    assert budget("global_ranking", keep=0.5, floor=9).floors(cmap) == {"0": 8, "2": 9}
    assert budget("own").limits(cmap, dense) == ()
