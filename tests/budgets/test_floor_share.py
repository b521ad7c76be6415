"""budget.floor_share: a share of each layer stays, however low its scores."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunebench.budgets import Budget
from prunebench.channels import ChannelMap, Plan, trace
from prunebench.contracts import Dense, GroupRank
from prunebench.errors import ConfigError, PruningError
from prunebench.options import option
from prunebench.records.identity import settings
from prunebench.run.prune import nearly_gone

SIZES = {"0": 8, "2": 60}
GLOBAL = {
    "global_ranking": {"keep": 0.3},
    "macs": {"keep": 0.3, "allocation": "global"},
    "params": {"keep": 0.3, "allocation": "global"},
    "macs_params": {"macs": 0.3, "params": 0.3, "allocation": "global"},
}


def network() -> nn.Sequential:
    first, second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 60, 1)
    last = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(60, 5)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), *last)


@pytest.fixture(scope="module")
def cmap() -> ChannelMap:
    return trace(network(), torch.zeros(1, 3, 6, 6))


def budget(name: str, **changes: object) -> Budget:
    return option("budget", name, Budget, **{**GLOBAL.get(name, {}), **changes})


def choose(chosen: Budget, cmap: ChannelMap, *, sizes: dict[str, int] | None = None) -> Plan:
    """Ranks every channel of the last layer below all others."""
    now = SIZES if sizes is None else sizes
    scores = {"0": torch.arange(now["0"]) + 100.0, "2": torch.arange(now["2"]) + 1.0}
    ranks = {name: GroupRank(one.double()) for name, one in scores.items()}
    whole = Plan({})
    dense = Dense(SIZES, cmap.macs(whole), cmap.params(whole))
    return chosen.choose(cmap, ranks, dense, share=1)


@pytest.mark.parametrize("name", ["macs", "params", "macs_params"])
def test_a_tenth_of_every_layer_stays_by_default(name: str, cmap: ChannelMap) -> None:
    tight = {"macs": 0.1, "params": 0.1} if name == "macs_params" else {"keep": 0.1}
    assert len(choose(budget(name, **tight), cmap).kept["2"]) == 6
    assert len(choose(budget(name, **tight, floor_share=0), cmap).kept["2"]) < 6


def test_a_ranking_of_all_channels_leaves_a_tenth(cmap: ChannelMap) -> None:
    assert len(choose(budget("global_ranking", keep=0.15), cmap).kept["2"]) == 6
    assert choose(budget("global_ranking", keep=0.15, floor_share=0), cmap).kept["2"] == (58, 59)
    with pytest.raises(PruningError, match="budget.floor_share=0.1"):
        choose(budget("global_ranking", keep=0.01), cmap)


def test_the_share_is_of_the_dense_channels(cmap: ChannelMap) -> None:
    chosen = budget("global_ranking", keep=0.15)
    assert len(choose(chosen, cmap, sizes={"0": 8, "2": 20}).kept["2"]) == 6
    assert chosen.floors(cmap) == {"0": 1, "2": 6}


def test_a_uniform_ratio_knows_no_share(cmap: ChannelMap) -> None:
    chosen = budget("macs", keep=0.05, allocation="uniform", floor_share=0.5)
    assert len(choose(chosen, cmap).kept["2"]) < 30
    assert chosen.floors(cmap) == {"0": 1, "2": 1}


def test_ranges() -> None:
    with pytest.raises(ConfigError, match=r"floor_share must lie in \[0, 1\], got 1.5"):
        budget("global_ranking", floor_share=1.5)


@pytest.mark.parametrize("method", ["cac", "cac_abstract"])
def test_presets_with_a_floor_of_their_own_need_none(method: str, prunebench) -> None:
    done = prunebench("model=lenet5", f"method={method}", "--cfg", "job")
    assert "floor_share: 0\n" in done.stdout and "allocation: global" in done.stdout


def test_reports_from_before_are_the_same_setting(make_report) -> None:
    def setting(**keys: object) -> dict[str, object]:
        return settings(make_report(0, config={"budget": keys}))

    assert setting(keep=0.5) == setting(keep=0.5, floor_share=0)
    uniform = {"keep": 0.5, "allocation": "uniform"}
    assert setting(**uniform) == setting(**uniform, floor_share=0.1)
    assert setting(keep=0.5) != setting(keep=0.5, floor_share=0.1)


def test_what_is_nearly_gone_is_listed() -> None:
    dense = {"a": 768, "b": 40, "c": 8}
    assert nearly_gone({"a": 1, "b": 4, "c": 8}, dense) == "a (1 of 768)"
    assert nearly_gone({"b": 3, "c": 0}, dense) == "b (3 of 40), c (0 of 8)"
    assert nearly_gone({"b": 4}, dense) == ""
