"""The stable Python interface: imports, parameters and results."""

import dataclasses
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
from prunebench.criteria import l1
from prunebench.criteria.bn_probability import z_score
from prunebench.criteria.foad import select, similarity
from prunebench.criteria.thinet import removal_order, rescale
from prunebench.measure import lfw_accuracy, macs, params
from prunebench.options import option_class
from prunebench.options.files import conf_dir, read_option

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
            lfw_accuracy,
            "(network, path, *, protocol='insightface', image_size=(112, 112), mean=0.5,"
            " std=0.5019607843137255)",
        ),
        (
            prunebench.prune,
            "(model, example, *, criterion='l1', budget=None, repair='none', scope=None, only=(), "
            "exclude=(), steps=1, between=None, images=None, loss=None, forward=None, "
            "optimizer=None, seed=0, **keys)",
        ),
        (prunebench.save, "(model, path)"),
        (prunebench.load, "(path, model=None, example=None)"),
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


def test_the_names_can_be_found_and_cost_no_torch() -> None:
    code = (
        "import sys, prunebench; names = dir(prunebench); assert 'torch' not in sys.modules; "
        "print(*names, *dir(prunebench.criteria), *dir(prunebench.budgets))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    wanted = {"prune", "save", "load", "Slim", "PruningReport", "criteria", "budgets", "repairs"}
    assert wanted | {"Taylor", "Macs", "Criterion"} <= set(done.stdout.split())
    assert prunebench.criteria.L1 is l1.L1
    with pytest.raises(AttributeError, match="criterion has no 'L3'; classes: Aofp, Apoz,"):
        _ = prunebench.criteria.L3


@pytest.mark.parametrize("room", ["criterion", "budget", "repair"])
def test_an_option_made_in_python_is_as_its_yaml_says(room: str) -> None:
    given = {"keep": 0.5, "macs": 0.5, "params": 0.5}
    for path in (conf_dir() / room).glob("*.yaml"):
        shipped = {key: value for key, value in read_option(path).items() if key != "_target_"}
        made = option_class(room, str(read_option(path)["_target_"]).rpartition(".")[2])
        if path.stem in ("thinet_tpami", "per_layer") or getattr(made, "watches", False):
            continue  # a second YAML of a class; keys that have no default; not for `prune`
        names = {field.name for field in dataclasses.fields(made)}
        built = dataclasses.asdict(made(**{k: v for k, v in given.items() if k in names}))
        shipped.pop("floor_share", None)  # 0 in Python and in reports from before
        built.pop("floor_share", None)
        assert built == shipped, path


SNIPPET = """
import torch
from torch import nn, optim
import prunebench
from prunebench.criteria.taylor import Taylor

model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3))
image = torch.ones(1, 3, 8, 8)
small = prunebench.prune(
    model, image, criterion=Taylor(form="weight"), macs=0.5, images=image,
    loss=lambda outputs, targets: outputs.sum(), optimizer=optim.SGD(model.parameters(), lr=0.1),
)
reveal_type(small.plan.kept)
reveal_type(small.report.macs_after)
optim.SGD(small.parameters(), lr=0.1)
prunebench.save(small, "slim.pt")
reveal_type(prunebench.load("slim.pt", model).normalisation)
prunebench.prune(model, image, criterion=3)
"""


@pytest.mark.slow
def test_type_checkers_see_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SNIPPET)
    words = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), "mine.py"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert sum("error:" in line for line in lines) == 1, done.stdout
    assert 'Argument "criterion" to "prune" has incompatible type "int"' in done.stdout
    found = [line.partition("Revealed type is ")[2] for line in lines if "Revealed" in line]
    assert "tuple" in found[0].lower() and "int" in found[0]
    assert "int" in found[1]
    assert "Normalisation" in found[2] and "None" in found[2]
