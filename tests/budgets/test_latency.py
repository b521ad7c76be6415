"""A budget in milliseconds: the plan for given times of layers, computed by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from prunebench.budgets.latency import Latency
from prunebench.budgets.layer_times import Grid, Layer, LayerTimes, costly_widths
from prunebench.channels import Plan, trace
from prunebench.contracts import Dense, GroupRank
from prunebench.errors import ConfigError, PruningError

WIDTHS = (1, 8, 16, 32)


def linear(odd=1.0):
    """A layer that takes 10 microseconds for each output, `odd` times that at odd widths."""
    table = 10.0 * np.array([WIDTHS])
    return Grid((3,), WIDTHS, table, odd * 10.0 * np.array([[1, 5, 13, 29]]))


@pytest.fixture(scope="module")
def cmap():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 32, 1), nn.ReLU(), nn.Conv2d(32, 32, 1), nn.ReLU(), nn.Conv2d(32, 2, 1)
    )
    return trace(network.eval(), torch.zeros(1, 3, 4, 4))


def times(odd=1.0, dense=740.0, fixed=40.0):
    layers = [Layer(name, 3, (f"{name}.weight", 0), linear(odd)) for name in "02"]
    still = Grid((32,), (2,), np.array([[fixed]]), np.array([[fixed]]))
    return LayerTimes([*layers, Layer("4", 32, 2, still)], dense)


def plan_of(first, second):
    return Plan({"0": range(first), "2": range(second)})


def ranks():
    return {name: GroupRank(-torch.arange(32).double()) for name in "02"}


DENSE = Dense({"0": 32, "2": 32}, 1000, 1000)


def test_widths_between_are_interpolated_and_wider_is_never_faster():
    grid = Grid((8, 16), (8, 16), np.array([[1.0, 3.0], [2.0, 1.5]]), np.full((2, 2), 9.0))
    assert grid.at(8, 8) == 1.0
    assert grid.at(16, 8) == 2.0
    assert grid.at(16, 16) == 3.0  # measured 1.5, which narrower layers belie
    assert grid.at(16, 12) == 9.0  # no multiple of 8
    assert Grid((8, 16), (8, 24), np.array([[1.0, 3.0]] * 2), np.zeros((2, 2))).at(8, 16) == 2.0


def test_dense_widths_count_as_even_whatever_they_are():
    grid = Grid((10,), (1, 10), np.array([[1.0, 5.0]]), np.array([[7.0, 9.0]]))
    assert grid.at(10, 10) == 5.0
    assert grid.at(10, 4) == 8.0


def test_the_prediction_is_the_dense_time_less_what_the_layers_gain(cmap):
    assert times().whole == 680
    assert times().predicted(cmap, Plan({})) == 740
    assert times().predicted(cmap, plan_of(16, 8)) == pytest.approx(740 - 160 - 240)
    halved = times(dense=340)  # alone twice as slow as together
    assert halved.predicted(cmap, plan_of(16, 32)) == pytest.approx(340 - 80)


def test_networks_that_were_timed_are_met_and_interpolated(cmap):
    plan = plan_of(16, 16)  # alone, 420
    better = times().anchored(cmap, plan, 500.0)
    assert better.predicted(cmap, plan) == 500
    assert better.promised(cmap, plan) == pytest.approx(420)
    assert better.predicted(cmap, Plan({})) == 740
    assert better.predicted(cmap, plan_of(16, 32)) == pytest.approx(620)
    assert 60 < better.predicted(cmap, plan_of(1, 1)) < 140
    assert costly_widths(better, cmap, plan_of(13, 29)) == []
    assert times().anchored(cmap, Plan({}), 1.0).anchors == ()


def test_a_slower_slim_network_gains_nothing(cmap):
    slower = times().anchored(cmap, plan_of(13, 29), 900.0)
    assert slower.predicted(cmap, plan_of(13, 29)) == 740
    assert costly_widths(slower, cmap, plan_of(13, 29)) == [13, 29]


@pytest.mark.parametrize(("keep", "divisor", "kept"), [(0.5, 1, 13), (0.5, 8, 8), (0.37, 1, 9)])
def test_the_largest_plan_within_the_time_is_chosen(cmap, keep, divisor, kept):
    budget = Latency(keep=keep, divisor=divisor).timed(times())
    plan = budget.choose(cmap, ranks(), DENSE, share=1.0)
    counts = [len(plan.kept[name]) for name in "02"]
    assert budget.amount(cmap, plan) <= keep * 740
    assert max(counts) - min(counts) <= divisor
    assert kept in counts
    [limit] = budget.limits(cmap, DENSE)
    assert (limit.unit, limit.target) == ("microseconds", int(keep * 740))


def test_milliseconds_are_taken_as_they_are(cmap):
    assert Latency(keep=1.48).timed(times(dense=2960)).keep == 0.5
    with pytest.raises(PruningError, match=r"3 ms exceeds the 0.74 ms of the dense network \(cpu"):
        Latency(keep=3).timed(times())


def test_what_cannot_be_reached_is_refused(cmap):
    budget = Latency(keep=0.1, divisor=8).timed(times())
    with pytest.raises(PruningError, match="asks for at most 74 microseconds, and the least"):
        budget.choose(cmap, ranks(), DENSE, share=1.0)


def test_odd_widths_are_told_where_they_cost(cmap):
    assert costly_widths(times(odd=2.0), cmap, plan_of(13, 29)) == [13, 29]
    assert costly_widths(times(), cmap, plan_of(13, 29)) == []
    assert costly_widths(times(odd=2.0), cmap, plan_of(16, 32)) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"keep": 0}, "keep must be positive"),
        ({"on": "tpu"}, "on must be one of cpu, cuda, onnxruntime"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"divisor": -1}, "divisor must be at least 0"),
        ({"allocation": "all"}, "allocation must be one of"),
    ],
)
def test_settings_are_checked(wrong, said):
    with pytest.raises(ConfigError, match=said):
        Latency(**{"keep": 0.5, **wrong})


def test_it_does_not_choose_before_it_is_timed(cmap):
    with pytest.raises(PruningError, match="was timed"):
        Latency(keep=0.5).choose(cmap, ranks(), DENSE, share=1.0)
