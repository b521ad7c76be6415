"""Groups without a score stay whole, the others meet the budget, living channels are counted."""

import json
import re

import pytest
import torch
from torch import nn

from prunebench.analysis.clipped_normal import z_score
from prunebench.budgets import Budget
from prunebench.channels import trace
from prunebench.criteria import Criterion
from prunebench.errors import PruningError
from prunebench.options import option
from prunebench.repairs import Repair
from prunebench.run.scored import remarks, scored_only
from prunebench.run.step import Method, Sample, cut, dense_counts
from prunebench.run.step import evidence as looked_at
from prunebench.schedules import Schedule
from prunebench.schedules.oneshot import OneShot

BUDGETS = {
    "uniform": {"keep": 0.6},
    "per_layer": {"keep": {"*": 0.6}},
    "global_ranking": {"keep": 0.6},
    "macs": {"keep": 0.6},
    "params": {"keep": 0.6},
    "macs_params": {"macs": 0.6, "params": 0.6, "allocation": "global"},
}


class Bottlenecks(nn.Module):
    """Convolution, norm and ReLU; a linear bottleneck; and both once more."""

    def __init__(self):
        super().__init__()
        widths = (3, 12, 6, 16, 8)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=False)
            for a, b in zip(widths, widths[1:], strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(conv(x))
            x = x if number == 1 else x.relu()
        return self.fc(x.mean((2, 3)))


@pytest.fixture
def network():
    torch.manual_seed(1)
    made = Bottlenecks()
    for norm in made.norms:
        norm.weight.data.uniform_(0.2, 1.5)
        norm.bias.data.normal_()
    return made.eval()


EXAMPLE = torch.zeros(1, 3, 8, 8)
SAMPLE = Sample(torch.empty(0, 3, 8, 8), torch.empty(0).long(), 0)
REASON = {"convs.1": "norms.1 is not followed by a ReLU"}


def pruned(network, budget, schedule=OneShot(), **changes):  # noqa: B008
    """What is left of the network in the end, and the records of the steps."""
    criterion = option("criterion", "bn_probability", Criterion, linear="keep")
    cmap = trace(network, EXAMPLE)
    chosen, unscored = scored_only(
        criterion, option("budget", budget, Budget, **changes), network, cmap
    )
    assert unscored == REASON
    method = Method(criterion, chosen, option("repair", "none", Repair))
    records, dense = [], dense_counts(cmap)
    for step in schedule.steps([group.name for group in chosen.select(cmap)]):
        made = cut(
            looked_at(network, trace(network, EXAMPLE), step, SAMPLE),
            method,
            step,
            dense,
            example=EXAMPLE,
        )
        network, records = made.network, [*records, made.record]
    return network, records


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_linear_bottleneck_stays_whole_and_the_others_meet_the_budget(network, budget):
    before = sum(p.numel() for p in network.parameters())
    slim, [record] = pruned(network, budget, **BUDGETS[budget])
    widths = [conv.out_channels for conv in slim.convs]
    assert widths[1] == 6
    assert torch.equal(slim.norms[1].weight, network.norms[1].weight)
    if budget in ("uniform", "per_layer"):
        assert widths == [7, 6, 9, 4]
    elif budget == "global_ranking":
        assert sum(widths) - 6 == int(0.6 * (12 + 16 + 8))
    if "params" in budget:
        assert sum(p.numel() for p in slim.parameters()) <= 0.6 * before
    assert "convs.1" not in record.kept


def test_layer_by_layer_nobody_counts_on_the_bottleneck(network):
    dense = dense_counts(trace(network, EXAMPLE))
    slim, records = pruned(
        network, "macs", option("schedule", "layerwise", Schedule, epochs=0), keep=0.5
    )
    assert len(records) == 3
    assert slim.convs[1].out_channels == 6
    assert dense_counts(trace(slim, EXAMPLE)).macs <= dense.macs // 2


def test_what_the_scored_groups_cannot_reach_is_refused_with_what_they_can(network):
    """With one channel left in each scored group: 9*(3*1 + 1*6 + 6*1 + 1*1)*64 + 1*4 MACs."""
    with pytest.raises(PruningError, match=r"the least that can be reached is 9,220 \("):
        pruned(network, "macs", keep=0.01)


def test_living_channels_that_went_are_counted(network):
    slim, [record] = pruned(network, "uniform", keep=0.25)
    alive = removed = 0
    for number, count in ((0, 3), (2, 4), (3, 2)):
        norm = network.norms[number]
        z = z_score(norm.weight, norm.bias, norm.running_var, norm.eps).tolist()
        gone = sorted(z, reverse=True)[: len(z) - count]
        alive, removed = alive + sum(value < 1 for value in gone), removed + len(gone)
        assert slim.convs[number].out_channels == count
    assert 0 < alive < removed == record.removed
    assert record.removed_alive == alive
    assert [*remarks(record)] == [f"{alive} of {removed} removed channels were alive"]


def test_criteria_that_do_not_know_the_living_say_nothing(network):
    method = Method(*(option(*o) for o in (
        ("criterion", "l1", Criterion), ("budget", "uniform", Budget), ("repair", "none", Repair)
    )))  # fmt: skip
    [step] = OneShot().steps(["convs.0"])
    dense = dense_counts(trace(network, EXAMPLE))
    record = cut(
        looked_at(network, trace(network, EXAMPLE), step, SAMPLE),
        method,
        step,
        dense,
        example=EXAMPLE,
    ).record
    assert (record.removed, record.removed_alive, [*remarks(record)]) == (None, None, [])


def test_a_network_without_any_score_is_refused():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).eval()
    with pytest.raises(PruningError, match="can score no group of this network .*0: 1 is not foll"):
        scored_only(
            option("criterion", "bn_probability", Criterion, linear="keep"),
            option("budget", "uniform", Budget),
            network,
            trace(network, EXAMPLE),
        )


def test_the_command_says_both(prunebench, tmp_path):
    done = prunebench(
        "model=mobilenet_v2", "model.width=0.25", "dataset=digits", "dataset.size=16",
        "dataset.test_size=50", "dataset.val_size=16", "method=probability", "budget=uniform",
        "recipe=quick", "recipe.baseline.epochs=0", "recipe.finetune.epochs=0",
        "run.latency_batch=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "budget.floor_share of method=probability does not apply to uniform" in done.stderr
    assert re.search(
        r"left whole, without a score: \S+ \(\S+ is not followed by a ReLU\)", done.stderr
    )
    [path] = tmp_path.rglob("report.json")
    report = json.loads(path.read_text())
    assert report["unscored"] == {
        "features.17.conv.2": "features.17.conv.3 is not followed by a ReLU"
    }
    [step] = report["steps"]
    assert "features.17.conv.2" not in {*report["plan"], *step["kept"]}
    # a net that has seen nothing: all shifts are 0, so that nothing is dead
    assert step["removed_alive"] == step["removed"] > 1000
    assert f"{step['removed']:,} of {step['removed']:,} removed channels were alive" in done.stderr
