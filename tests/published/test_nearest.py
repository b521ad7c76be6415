"""The commands for published rows compose, and cut our networks to the printed sizes."""

import shlex

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from prunebench.config import Run
from prunebench.config import load as build
from prunebench.config.presets import leave_out
from prunebench.errors import DataError
from prunebench.options.files import conf_dir
from prunebench.published.nearest import METHODS, WIDTHS, command
from prunebench.published.record import find, load


def commands() -> dict[str, list[str]]:
    """Id -> words of all rows that something of ours comes near."""
    found = {}
    for row in load():
        try:
            found[row.id] = command(row)
        except DataError:
            continue
    return found


def test_as_many_rows_as_before_have_a_command() -> None:
    found = commands()
    assert len(found) == 260
    assert {"l1-b-r56-c10", "fpgm-only-40-r56-c10", "thinet-r56-c10", "foad-vgg16-c10"} <= {*found}
    assert {*WIDTHS} <= {*found}
    assert found["foad-mobilefacenet-lfw"] == ["experiment=foad_mobilefacenet"]


@pytest.mark.parametrize(
    "row_id",
    [
        "l1-a-r56-c10",
        "fpgm-only-40-r56-c10",
        "thinet-conv-vgg16-in-1",
        "thinet-r56-c10",
        "foad-mobilefacenet-lfw",
    ],
)
def test_a_command_makes_a_run(row_id: str) -> None:
    makes_a_run(row_id)


@pytest.mark.parametrize(
    ("row_id", "preset", "left"),
    [
        ("hrank-vgg16-c10", "experiment=hrank_vgg16", 0),
        ("hrank-r110-c10", "method=hrank", 2),
        ("hrankplus-r56-c10-1", "criterion=hrank", 3),  # another training
        ("slimming-70-vgg19-c10", "method=slimming", 0),
        ("slimming-60-r164-c10-2", "method=slimming", 4),
        ("l1-b-r56-c10", "experiment=l1_resnet56_b", 0),
        ("taylor-fo-bn-72-r50-in", "method=taylor", 2),
    ],
)
def test_rivals_are_run_as_published(row_id: str, preset: str, left: int) -> None:
    words = command(find(row_id))
    assert preset in words
    others = [word for word in words if not word.startswith(("model", "dataset"))]
    assert len(others) == left + 1
    run = makes_a_run(row_id)
    assert run.recipe.baseline.gamma_hinge == 0  # which is our probability's
    if "slimming" in row_id:
        assert run.recipe.baseline.gamma_l1 == (1e-4 if "vgg" in row_id else 1e-5)
        assert run.baseline.norm_scale == 0.5


@pytest.mark.slow
def test_all_kinds_of_commands_make_a_run() -> None:
    kinds = {}
    for row_id, words in commands().items():
        kind = [word for word in words if word.startswith(("method", "criterion", "schedule"))]
        kinds[tuple(kind), "budget.allocation=global" in words] = row_id
    assert len(kinds) >= len(METHODS)
    for row_id in [*kinds.values(), *WIDTHS]:
        makes_a_run(row_id)


def makes_a_run(row_id: str) -> Run:
    """Composes the command and checks the run, as the command line does before it begins."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("config", ["name=x", *command(find(row_id))], return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    choices = {str(k): str(v) for k, v in config.hydra.runtime.choices.items()}
    del config._content["hydra"]  # noqa: SLF001
    choices = {k: v for k, v in choices.items() if "/" not in k}
    list(leave_out(config, choices, [conf_dir()], []))
    return build(config, choices)


@pytest.fixture
def images(tmp_path):
    """Ten images a class, in the format and of the size of CIFAR-10."""
    draw = np.random.default_rng(0)
    arrays = {}
    for part, size in (("train", 100), ("test", 20)):
        arrays[f"{part}_images"] = draw.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(size) % 10
    np.savez(tmp_path / "a.npz", **arrays)
    return ["dataset=npz", "dataset.path=a.npz", "dataset.val_size=20"]


@pytest.mark.parametrize(
    ("row_id", "macs"), [("l1-b-r56-c10", "-27.6"), ("foad-vgg16-c10", "-63.7")]
)
def test_a_dry_run_cuts_as_much_as_is_printed(prunebench, images, row_id, macs):
    done = prunebench("reproduce", row_id, *images)
    words = shlex.split(done.stdout.splitlines()[-1])[1:]
    done = prunebench(*words, "run.dry_run=true")
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("MACs")]
    assert f"({macs}%)" in line


@pytest.mark.slow
def test_a_row_is_run_and_ours_set_beside_it(prunebench, images):
    short = ["recipe=quick", "recipe.baseline.epochs=1", "recipe.finetune.epochs=1"]
    done = prunebench("reproduce", "l1-b-r56-c10", *images, *short, "--go")
    assert done.returncode == 0, done.stderr
    assert "L1, pruned-B" in done.stdout
    assert "93.06" in done.stdout
    said = " ".join(done.stdout.split())
    assert "Not as published, as you typed: dataset=npz" in said
    assert "recipe=quick" in said
