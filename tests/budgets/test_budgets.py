"""Budgets on a chain of three convolutions whose counts can be computed by hand."""

import pytest
import torch
from torch import nn

from prunebench.budgets.counts import best, kept_count
from prunebench.budgets.global_ranking import GlobalRanking
from prunebench.budgets.macs import Macs
from prunebench.budgets.own import Own
from prunebench.budgets.params import Params
from prunebench.budgets.per_layer import PerLayer
from prunebench.budgets.search import largest_within
from prunebench.budgets.uniform import Uniform
from prunebench.channels import Plan, slim, trace
from prunebench.contracts import Dense, GroupRank
from prunebench.errors import ConfigError, PruningError

SIZES = {"0": 8, "2": 10, "4": 100}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(),
        nn.Conv2d(8, 10, 1, bias=False), nn.ReLU(),
        nn.Conv2d(10, 100, 1, bias=False), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(100, 5),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def cmap(network):
    return trace(network, torch.zeros(1, 3, 6, 6))


@pytest.fixture(scope="module")
def dense(cmap):
    whole = Plan({})
    return Dense({g.name: g.size for g in cmap.groups}, cmap.macs(whole), cmap.params(whole))


def macs_of(a, b, c):
    return 16 * (27 * a + a * b + b * c) + 5 * c


def params_of(a, b, c):
    return 27 * a + a * b + b * c + 5 * c + 5


def ranked(seed=0, names=SIZES, sizes=SIZES):
    noise = torch.Generator().manual_seed(seed)
    scores = {n: torch.rand(s, dtype=torch.float64, generator=noise) for n, s in sizes.items()}
    return {name: GroupRank(scores[name]) for name in names}


def counts(plan):
    return tuple(len(plan.kept[name]) for name in plan.kept)


def test_the_chain_is_what_the_hand_counts_say(cmap, dense):
    assert dense.sizes == SIZES
    assert dense.macs == macs_of(8, 10, 100)
    assert dense.params == params_of(8, 10, 100)


@pytest.mark.parametrize(
    ("wanted", "floor", "divisor", "size", "count"),
    [
        (100 * 0.29, 1, 1, 100, 29),  # 28.999999999999996 in floating point
        (7.99, 1, 1, 10, 7),
        (0.2, 1, 1, 10, 1),
        (0.2, 4, 1, 10, 4),
        (0.2, 40, 1, 10, 10),
        (9, 1, 8, 64, 16),
        (9, 1, 8, 12, 12),
        (16, 1, 8, 64, 16),
    ],
)
def test_kept_count(wanted, floor, divisor, size, count):
    budget = Uniform(keep=0.5, floor=floor, divisor=divisor)
    assert kept_count(budget, wanted, size) == count


def test_rounding_cuts_off_the_kept_or_the_removed(cmap, dense):
    """As the papers' code writes it: int(C * keep) stay (L1, ThiNet), or int(C * rate) go (SFP)."""
    for percent in range(1, 100):
        kept = Uniform(keep=percent / 100).choose(cmap, ranked(), dense, share=1)
        asked = Uniform(keep=percent / 100, rounding="removed")
        gone = asked.choose(cmap, ranked(), dense, share=1)
        for name, size in SIZES.items():
            assert len(kept.kept[name]) == max(1, size * percent // 100)
            assert len(gone.kept[name]) == max(1, size - size * (100 - percent) // 100)
    layers = PerLayer(keep={"0": 0.7}, otherwise=0.33, rounding="removed")
    assert counts(layers.choose(cmap, ranked(), dense, share=1)) == (6, 4, 33)
    with pytest.raises(ConfigError, match="rounding must be one of kept, removed; got 'up'"):
        Uniform(keep=0.5, rounding="up")


@pytest.mark.parametrize("percent", [10, 37, 50])
def test_strict_keeps_what_is_above_the_threshold_of_network_slimming(cmap, dense, percent):
    """Sorted scores at int(total * percent) are the threshold, and what equals it goes too."""
    ranks = {n: GroupRank((r.scores * 40).round()) for n, r in ranked().items()}  # with ties
    scores = sorted(x for rank in ranks.values() for x in rank.scores.tolist())
    threshold = scores[len(scores) * percent // 100]
    plan = GlobalRanking(keep=1 - percent / 100, strict=True).choose(cmap, ranks, dense, share=1)
    for name, rank in ranks.items():
        above = [i for i, score in enumerate(rank.scores.tolist()) if score > threshold]
        assert list(plan.kept[name]) == above


def test_a_layer_that_the_threshold_empties_keeps_one_and_the_others_what_is_above(cmap, dense):
    ranks = ranked()
    low, *others = ranks
    ranks[low] = GroupRank(ranks[low].scores * 1e-6)
    scores = torch.cat([rank.scores for rank in ranks.values()]).sort().values
    threshold = scores[int(len(scores) * 0.7)]
    plan = GlobalRanking(keep=0.3, strict=True).choose(cmap, ranks, dense, share=1)
    assert list(plan.kept[low]) == [int(ranks[low].scores.argmax())]
    for name in others:
        above = (ranks[name].scores > threshold).nonzero()[:, 0].tolist()
        assert list(plan.kept[name]) == above


def test_best_is_ascending_and_ties_go_to_the_lower_index():
    scores = torch.tensor([0.1, 0.5, 0.5, 0.9, 0.5]).double()
    assert best(scores, 2) == (1, 3)
    assert best(scores, 3) == (1, 2, 3)
    assert best(torch.zeros(50), 20) == tuple(range(20))


def test_largest_within_asks_for_every_answer():
    sizes = [3, 3, 5, 9]
    for target in range(1, 11):
        expected = max((k for k, s in enumerate(sizes) if s <= target), default=-1)
        assert largest_within(target, 4, sizes.__getitem__) == expected


def test_uniform_keeps_the_best_of_each(cmap, dense):
    ranks = ranked()
    plan = Uniform(keep=0.29).choose(cmap, ranks, dense, share=1)
    assert counts(plan) == (2, 2, 29)
    for name, kept in plan.kept.items():
        scores = ranks[name].scores
        assert scores[list(kept)].min() >= scores.sort().values[-len(kept)]


def test_uniform_goes_part_of_the_way_of_the_dense_size(network, cmap, dense):
    budget = Uniform(keep=0.5)
    half = budget.choose(cmap, ranked(), dense, share=0.5)
    assert counts(half) == (6, 7, 75)
    small = slim(network, cmap, half)
    after = trace(small, torch.zeros(1, 3, 6, 6))
    rest = ranked(sizes={"0": 6, "2": 7, "4": 75})
    assert counts(budget.choose(after, rest, dense, share=1)) == (4, 5, 50)


def test_uniform_cuts_fractions_off_so_that_any_ratio_removes_something(cmap, dense):
    assert counts(Uniform(keep=0.999).choose(cmap, ranked(), dense, share=1)) == (7, 9, 99)
    assert counts(Uniform(keep=1).choose(cmap, ranked(), dense, share=1)) == (8, 10, 100)


def test_uniform_that_removes_nothing_says_so(cmap, dense):
    message = r"budget.keep=0.5 removes none of 118 channels; .*floor=1, budget.divisor=128"
    with pytest.raises(PruningError, match=message):
        Uniform(keep=0.5, divisor=128).choose(cmap, ranked(), dense, share=1)
    message = r"budget.keep=0.9 removes none of 18 channels"
    with pytest.raises(PruningError, match=message):
        Uniform(keep=0.9, floor=10, exclude=["4"]).choose(cmap, ranked(), dense, share=1)


def test_uniform_divisor_and_floor(cmap, dense):
    plan = Uniform(keep=0.3, floor=4, divisor=3).choose(cmap, ranked(), dense, share=1)
    assert counts(plan) == (6, 6, 30)


def test_per_layer_takes_the_first_match(cmap, dense):
    budget = PerLayer(keep={"2": 0.3, "[24]": 0.5}, otherwise=1.0)
    assert counts(budget.choose(cmap, ranked(), dense, share=1)) == (8, 3, 50)
    assert counts(budget.choose(cmap, ranked(), dense, share=0.5)) == (8, 6, 75)
    budget = PerLayer(keep={"2": 0.3}, otherwise=0.75)
    assert counts(budget.choose(cmap, ranked(), dense, share=1)) == (6, 3, 75)
    assert counts(budget.choose(cmap, ranked(names=["4"]), dense, share=1)) == (75,)


def test_per_layer_names_groups_where_a_pattern_matches_none(cmap, dense):
    with pytest.raises(PruningError, match=r"'layer\*' matches no group; groups: 0, 2, 4"):
        PerLayer(keep={"layer*": 0.5}, otherwise=1.0).choose(cmap, ranked(), dense, share=1)


def test_own_keeps_the_decision(cmap, dense):
    ranks = {"0": GroupRank(torch.arange(8.0), (0, 1, 5))}
    assert Own().choose(cmap, ranks, dense, share=1).kept == {"0": (0, 1, 5)}
    assert Own(floor=5).choose(cmap, ranks, dense, share=1).kept == {"0": (0, 1, 5, 6, 7)}
    assert Own().choose(cmap, ranks, dense, share=0.2).kept == {"0": (0, 1, 5)}
    assert Own().choose(cmap, ranks, dense, share=0).kept == {"0": tuple(range(8))}
    assert Own(divisor=4).choose(cmap, ranks, dense, share=1).kept == {"0": (0, 1, 5, 7)}


def test_own_needs_a_decision(cmap, dense):
    with pytest.raises(PruningError, match="made no decision for 0"):
        Own().choose(cmap, ranked(), dense, share=1)


def test_global_keeps_the_best_of_all(cmap, dense):
    ranks = ranked()
    ranks = {**ranks, "2": GroupRank(ranks["2"].scores * 0.01)}
    plan = GlobalRanking(keep=0.5).choose(cmap, ranks, dense, share=1)
    assert sum(counts(plan)) == 59
    assert len(plan.kept["2"]) == 1  # the floor
    scores = [ranks[n].scores[list(plan.kept[n])] for n in ("0", "4")]
    gone = [
        ranks[n].scores[[i for i in range(SIZES[n]) if i not in plan.kept[n]]] for n in ("0", "4")
    ]
    assert torch.cat(scores).min() > torch.cat(gone).max()


def test_global_counts_floor_and_divisor_towards_the_total(cmap, dense):
    for divisor in (1, 4, 7):
        plan = GlobalRanking(keep=0.4, floor=3, divisor=divisor).choose(
            cmap, ranked(), dense, share=1
        )
        assert 47 - 3 * divisor < sum(counts(plan)) <= 47
        assert all(
            n % divisor == 0 or n == s for n, s in zip(counts(plan), SIZES.values(), strict=True)
        )
    with pytest.raises(PruningError, match="at most 1 of 118 channels, and budget.floor=1"):
        GlobalRanking(keep=0.01).choose(cmap, ranked(), dense, share=1)


@pytest.mark.parametrize(("budget", "count"), [(Macs, macs_of), (Params, params_of)])
@pytest.mark.parametrize("keep", [0.12, 0.35, 0.5, 0.9])
@pytest.mark.parametrize("divisor", [1, 4])
def test_uniform_target_is_met_by_the_largest_uniform_cut(
    cmap, dense, budget, count, keep, divisor
):
    target = keep * count(8, 10, 100)
    few = Uniform(keep=0.5, divisor=divisor)
    # a keep ratio grows from 0 to 1; 400 is a common multiple of the sizes
    cut, found = [0, 0, 0], None
    for step in range(401):
        for position, size in enumerate((8, 10, 100)):
            if step * size // 400 > cut[position]:
                cut[position] += 1
            widths = tuple(kept_count(few, c, s) for c, s in zip(cut, (8, 10, 100), strict=True))
            if count(*widths) > target:
                break
            found = widths
        else:
            continue
        break
    chosen = budget(keep=keep, allocation="uniform", divisor=divisor)
    assert counts(chosen.choose(cmap, ranked(), dense, share=1)) == found


@pytest.mark.parametrize("budget", [Macs, Params])
@pytest.mark.parametrize("keep", [0.2, 0.6])
def test_global_target_is_met_and_one_more_channel_would_exceed_it(cmap, dense, budget, keep):
    count = macs_of if budget is Macs else params_of
    ranks = ranked(3)
    plan = budget(keep=keep, allocation="global").choose(cmap, ranks, dense, share=1)
    target = keep * count(8, 10, 100)
    assert count(*counts(plan)) <= target
    left = [
        (ranks[n].scores[i].item(), n)
        for n in SIZES
        for i in range(SIZES[n])
        if i not in plan.kept[n]
    ]
    _, name = max(left)
    more = {n: len(plan.kept[n]) + (n == name) for n in SIZES}
    assert count(*more.values()) > target


def test_target_is_met_on_the_slimmed_network(network, cmap, dense):
    plan = Macs(keep=0.5, allocation="uniform").choose(cmap, ranked(), dense, share=1)
    after = trace(slim(network, cmap, plan), torch.zeros(1, 3, 6, 6))
    assert after.macs(Plan({})) == macs_of(*counts(plan)) <= dense.macs / 2


def test_target_above_one_is_a_number(cmap, dense):
    share = Macs(keep=0.5, allocation="uniform").choose(cmap, ranked(), dense, share=1)
    number = Macs(keep=dense.macs // 2, allocation="uniform").choose(cmap, ranked(), dense, share=1)
    assert share == number
    with pytest.raises(PruningError, match="exceeds the .* MACs of the dense network"):
        Macs(keep=dense.macs + 1, allocation="uniform").choose(cmap, ranked(), dense, share=1)


def test_target_of_all_keeps_all(cmap, dense):
    plan = Params(keep=1, allocation="uniform").choose(cmap, ranked(), dense, share=1)
    assert counts(plan) == (8, 10, 100)


@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_target_out_of_reach_names_the_least(cmap, dense, allocation):
    least = macs_of(2, 2, 2)
    with pytest.raises(PruningError, match=rf"the least that can be reached is {least:,} "):
        Macs(keep=0.001, allocation=allocation, floor=2).choose(cmap, ranked(), dense, share=1)


def test_target_part_of_the_way(cmap, dense):
    plan = Macs(keep=0.5, allocation="uniform").choose(cmap, ranked(), dense, share=0.5)
    full = Macs(keep=0.75, allocation="uniform").choose(cmap, ranked(), dense, share=1)
    assert plan == full


@pytest.mark.parametrize(("budget", "count"), [(Macs, macs_of), (Params, params_of)])
@pytest.mark.parametrize("keep", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("divisor", [1, 4])
def test_layer_by_layer_ends_within_the_target(network, dense, budget, count, keep, divisor):
    chosen = budget(keep=keep, allocation="uniform", divisor=divisor)
    example = torch.zeros(1, 3, 6, 6)
    at_once = chosen.choose(trace(network, example), ranked(), dense, share=1)
    now, sizes = network, dict(SIZES)
    for name in SIZES:
        cmap = trace(now, example)
        plan = chosen.choose(cmap, ranked(names=[name], sizes=sizes), dense, share=1)
        assert list(plan.kept) == [name]
        now, sizes[name] = slim(now, cmap, plan), len(plan.kept[name])
    found = tuple(sizes.values())
    assert count(*counts(at_once)) <= count(*found) <= keep * count(8, 10, 100)
    assert trace(now, example).macs(Plan({})) == macs_of(*found)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform(keep=0), r"keep must lie in \(0, 1\], got 0"),
        (lambda: Uniform(keep=1.5), r"keep must lie in \(0, 1\], got 1.5"),
        (lambda: GlobalRanking(keep=-1), r"keep must lie in \(0, 1\], got -1"),
        (lambda: PerLayer(keep={"a": 2}, otherwise=1), r"keep of 'a' must lie in \(0, 1\], got 2"),
        (lambda: PerLayer(keep={}, otherwise=0), r"otherwise must lie in \(0, 1\], got 0"),
        (lambda: Macs(keep=0, allocation="uniform"), "keep must be positive, got 0"),
        (lambda: Params(keep=0.5, allocation="layer"), "allocation must be one of uniform, global"),
        (lambda: Own(floor=0), "floor must be at least 1, got 0"),
        (lambda: Own(divisor=0), "divisor must be at least 1, got 0"),
        (lambda: Own(scope="outer"), "scope must be one of inner, all; got 'outer'"),
    ],
)
def test_ranges(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_what_a_budget_needs():
    assert Own().needs_decision
    assert not Uniform(keep=0.5).needs_decision
    assert GlobalRanking(keep=0.5).needs_comparable
    assert Macs(keep=0.5, allocation="global").needs_comparable
    assert not Macs(keep=0.5, allocation="uniform").needs_comparable
