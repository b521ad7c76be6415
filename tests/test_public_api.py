"""The Python interface that stays: what is imported from where, its parameters, and its results."""

import subprocess
import sys
from collections.abc import Callable
from inspect import Parameter, signature
from pathlib import Path

import pytest
import torch
from torch import nn

import prunebench
from prunebench.channels import Plan, mask, slim, trace
from prunebench.checkpoints import slimmed
from prunebench.criteria.bn_probability import z_score
from prunebench.criteria.foad import select, similarity
from prunebench.criteria.thinet import removal_order, rescale
from prunebench.measure import macs, params

IMAGE = torch.ones(1, 3, 8, 8)


def network() -> nn.Module:
    """A network whose channels all live: what a ReLU zeroes anyway could be cut unnoticed."""
    torch.manual_seed(0)
    first = nn.Conv2d(3, 4, 3)
    nn.init.constant_(first.bias, 10.0)
    return nn.Sequential(first, nn.ReLU(), nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(2 * 16, 5))


def parameters(function: Callable[..., object]) -> str:
    """The parameters with their kinds and defaults, without annotations."""
    found = signature(function)
    bare = [each.replace(annotation=Parameter.empty) for each in found.parameters.values()]
    return str(found.replace(parameters=bare, return_annotation=Parameter.empty))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (trace, "(model, example)"),
        (slim, "(model, cmap, plan)"),
        (mask, "(model, cmap, plan)"),
        (Plan, "(kept)"),
        (Plan.from_json, "(text)"),
        (Plan.to_json, "(self)"),
        (similarity, "(features)"),
        (select, "(table, *, t, s=0.0, rule='v2023')"),
        (removal_order, "(gram, *, search)"),
        (rescale, "(gram, kept, *, ridge=1e-08)"),
        (z_score, "(gamma, beta, running_var, eps)"),
        (macs, "(network, example)"),
        (params, "(network)"),
        (
            prunebench.prune,
            "(model, example, *, criterion='l1', images=None, seed=0, **budget)",
        ),
        (prunebench.load, "(path)"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__qualname__,
)
def test_parameters_stay(function: Callable[..., object], expected: str) -> None:
    assert parameters(function) == expected


def test_a_network_is_traced_slimmed_and_masked() -> None:
    dense = network()
    cmap = trace(dense, IMAGE)
    assert [(group.name, group.size) for group in cmap.groups] == [("0", 4), ("2", 2)]
    plan = Plan({"0": [0, 3]})
    small, same = slim(dense, cmap, plan), mask(dense, cmap, plan)
    assert torch.equal(small[0].weight, dense[0].weight[[0, 3]])
    assert same[0].weight.shape == dense[0].weight.shape
    torch.testing.assert_close(small(IMAGE), same(IMAGE))
    assert not torch.allclose(small(IMAGE), dense(IMAGE))


def test_a_plan_is_json() -> None:
    plan = Plan({"conv1": [0, 3]})
    assert Plan.from_json(plan.to_json()) == plan


def test_similarity_is_one_over_one_plus_distance() -> None:
    maps = torch.tensor([0.0, 3.0]).view(1, 2, 1, 1)
    assert similarity(maps).tolist() == [[1.0, 0.25], [0.25, 1.0]]


def test_a_kept_channel_removes_the_one_most_like_it() -> None:
    table = torch.tensor([[1.0, 0.9, 0.1], [0.9, 1.0, 0.2], [0.1, 0.2, 1.0]])
    assert select(table, t=1, s=0.5) == [0, 2]


def test_what_adds_least_goes_first() -> None:
    assert removal_order(torch.diag(torch.tensor([4.0, 1.0, 9.0])), search="remove") == [1, 0, 2]


def test_one_of_two_equal_channels_doubles_to_stand_for_both() -> None:
    torch.testing.assert_close(rescale(torch.ones(2, 2), [0]), torch.tensor([2.0]).double())


def test_z_is_minus_beta_in_deviations() -> None:
    two, minus_three, variance = torch.tensor([2.0]), torch.tensor([-3.0]), torch.tensor([1.0])
    # var / (var + eps) = 1/4, so that the deviation is 2 * 1/2
    torch.testing.assert_close(
        z_score(two, minus_three, variance, 3.0), torch.tensor([3.0]).double()
    )


def test_counts() -> None:
    conv = nn.Conv2d(3, 4, 3)
    assert params(conv) == 4 * 27 + 4
    assert macs(conv, IMAGE) == 4 * 27 * 36


def test_prune_in_one_line() -> None:
    small = prunebench.prune(network(), IMAGE)
    assert (small[0].out_channels, small[2].out_channels) == (2, 1)


def test_load_what_a_run_saved(tmp_path: Path) -> None:
    section = {"_target_": "prunebench.models.mlp.Mlp", "widths": [6]}
    origin = slimmed.Provenance(section, (1, 2, 2), 3, (Plan({"fc1": [1, 4]}),), (0.5,), (0.5,))
    small = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 3))
    saved = nn.ModuleDict({"fc1": small[0], "fc2": small[1]})
    slimmed.save(tmp_path / "slim.pt", saved, origin)
    loaded = prunebench.load(tmp_path / "slim.pt")
    image = torch.ones(1, 1, 2, 2)
    expected = small[1](small[0](image.flatten(1)).relu())
    torch.testing.assert_close(loaded(image), expected)


@pytest.mark.parametrize("name", ["foad", "thinet", "bn_probability"])
def test_criteria_are_imported_without_torch(name: str) -> None:
    code = f"import sys, prunebench.criteria.{name}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
