"""Recipes: ranges, and YAMLs that give every field exactly once."""

from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from prunebench.config import load, plain_values
from prunebench.errors import ConfigError
from prunebench.options.files import conf_dir
from prunebench.options.schema import section
from prunebench.recipes import OF_ALL_PHASES, Phase, Recipe
from prunebench.training.optim import learning_rate

CONF = conf_dir()
RECIPES = sorted(path.stem for path in (CONF / "recipe").glob("*.yaml"))
PHASE = Phase(
    epochs=10, batch_size=8, optimizer="sgd", lr=0.1, momentum=0.9, nesterov=False,
    weight_decay=1e-4, decay="all", schedule="multistep", milestones=[0.5], gamma=0.1,
    warmup_epochs=0.0, label_smoothing=0.0, precision="float32", channels_last=False,
)  # fmt: skip


@cache
def resolved(name: str) -> dict[str, dict[str, object]]:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose("config", ["name=x", f"recipe={name}"])
    return plain_values(cfg)["recipe"]  # type: ignore[no-any-return]


def build(name: str) -> Recipe:
    return section("recipe", resolved(name), Recipe)


def written(path: Path) -> dict[str, Any]:
    values = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(values, dict)
    return values


def test_every_recipe_builds_and_gives_every_field() -> None:
    assert {"cac", "cifar", "foad", "mnist", "quick", "short"} <= set(RECIPES)
    for name in RECIPES:
        assert (CONF / "recipe" / f"{name}.yaml").read_text().startswith("# ")
        assert isinstance(build(name).finetune, Phase)
        assert list(resolved(name)) == [field.name for field in fields(Recipe)]
        for phase in resolved(name).values():
            assert list(phase) == [field.name for field in fields(Phase)]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_writes_only_what_differs_from_what_it_begins_with(name: str) -> None:
    differences = written(CONF / "recipe" / f"{name}.yaml")
    *begins_with, last = differences.pop("defaults")
    assert last == "_self_"
    inherited: dict[str, dict[str, object]] = {}
    for entry in begins_with:
        if isinstance(entry, str):
            inherited |= resolved(entry)
        else:
            [(place, base)] = entry.items()
            phase = place.removeprefix("phase@")
            inherited[phase] = written(CONF / "recipe" / "phase" / f"{base}.yaml")
    assert differences
    assert differences.pop(OF_ALL_PHASES, "bf16") == "bf16"  # float32 is what all begin with
    for phase, values in differences.items():
        assert values, f"{phase} says nothing"
        for key, value in values.items():
            assert value != inherited[phase][key], f"{phase}.{key} says what is so already"


FROM_PHASES = """
defaults: [phase@baseline: sgd, phase@between: sgd, phase@pruning: sgd, phase@finetune: sgd, _self_]
baseline: {epochs: 3}
finetune: {epochs: 4}
"""
FROM_ANOTHER = """
defaults: [quick, _self_]
baseline: {epochs: 3}
finetune: {epochs: 4}
"""
IN_FULL = "".join(
    f"{phase}: {{epochs: {epochs}, batch_size: 8, optimizer: adam, lr: 0.1, momentum: 0.9, "
    "nesterov: false, weight_decay: 0.0, decay: all, schedule: constant, milestones: [], "
    "gamma: 0.1, warmup_epochs: 0.0, label_smoothing: 0.0, precision: float32, "
    "channels_last: false}\n"
    for phase, epochs in {"baseline": 3, "between": 0, "pruning": 2, "finetune": 4}.items()
)


@pytest.mark.parametrize("text", [FROM_PHASES, FROM_ANOTHER, IN_FULL])
def test_a_recipe_of_ones_own_may_lie_in_another_folder(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text(text)
    typed = [f"hydra.searchpath=[{tmp_path}]", "name=test", "recipe=mine"]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose("config", [*typed, "recipe.finetune.epochs=1"])
    recipe = load(cfg, {}).recipe
    assert (recipe.baseline.epochs, recipe.between.epochs, recipe.finetune.epochs) == (3, 0, 1)


def test_foad_is_what_the_authors_code_does() -> None:
    tune = build("foad").finetune
    assert (tune.epochs, tune.batch_size, tune.lr, tune.momentum) == (160, 64, 0.1, 0.9)
    assert (tune.weight_decay, tune.decay, tune.nesterov) == (1e-4, "all", False)
    assert replace(tune, batch_size=128) == build("foad").baseline


def test_aofp_is_what_both_releases_do() -> None:
    steps = {"aofp": (0.1, 120, 180), "aofp_tf": (0.05, 200, 400)}
    for name, (lr, first, second) in steps.items():
        recipe = build(name)
        for phase in (recipe.baseline, recipe.pruning, recipe.finetune):
            assert (phase.batch_size, phase.momentum, phase.nesterov) == (64, 0.9, False)
            assert (phase.weight_decay, phase.decay) == (1e-4, "weights")
            assert phase.bias_rate == (2.0 if name == "aofp" else 1.0)
        for epoch, times in ((first - 1, 1), (first, 0.1), (second - 1, 0.1), (second, 0.01)):
            assert learning_rate(recipe.baseline, epoch, 1) == pytest.approx(times * lr)
        assert {learning_rate(recipe.pruning, epoch, 1) for epoch in (0, 300, 599)} == {1e-3}
    ends = [learning_rate(build("aofp").finetune, epoch, 1) for epoch in (0, 300, 600)]
    assert ends == pytest.approx([0.01, 0.005, 0])
    tune = build("aofp_tf").finetune
    rates = [learning_rate(tune, epoch, 1) for epoch in (0, 9, 199, 200, 399, 400, 599)]
    assert rates == pytest.approx([0.005, 0.05, 0.05, 0.005, 0.005, 5e-4, 5e-4])


def test_thinet_of_vgg16_is_what_the_authors_scripts_do() -> None:
    recipe = build("thinet_vgg16")
    for phase in (recipe.between, recipe.finetune):
        assert (phase.batch_size, phase.lr, phase.momentum, phase.nesterov) == (
            128,
            1e-3,
            0.9,
            False,
        )
        assert (phase.weight_decay, phase.decay, phase.bias_rate) == (5e-4, "weights", 2.0)
    after = replace(recipe.between, epochs=2)
    assert [learning_rate(after, step, 1) for step in range(2)] == pytest.approx([1e-3, 1e-4])
    rates = [learning_rate(recipe.finetune, epoch, 1) for epoch in range(12)]
    assert rates == pytest.approx([1e-3] * 4 + [1e-4] * 4 + [1e-5] * 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": -1}, "epochs must be at least 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"optimizer": "sdg"}, "optimizer must be one of sgd, adam, adamw; got 'sdg'"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"momentum": 1.0}, "momentum must lie in"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov needs"),
        ({"nesterov": True, "optimizer": "adam"}, "nesterov needs"),
        ({"weight_decay": -0.1}, "weight_decay must not"),
        ({"decay": "kernels"}, "decay must be one of all, weights"),
        ({"schedule": "linear"}, "schedule must be one of"),
        ({"milestones": [0.5, 0.5]}, "milestones must be ascending"),
        ({"milestones": [80.0]}, "milestones must be ascending"),
        ({"milestones": []}, "milestones must hold at least one"),
        ({"schedule": "step", "milestones": [0.2, 0.5]}, "milestones must hold one"),
        ({"gamma": 0.0}, "gamma must lie in"),
        ({"warmup_epochs": 11.0}, "warmup_epochs must lie in"),
        ({"label_smoothing": 1.0}, "label_smoothing must lie in"),
        ({"precision": "fp8"}, "precision must be one of float32, bf16, fp16"),
        ({"accumulate": 0}, "accumulate must lie in"),
        ({"schedule_by": "step"}, "schedule_by must be one of epoch, iteration"),
        ({"decay_of": {"fc": -1.0}}, "decay_of must not hold"),
        ({"ema": 1.0}, "ema must lie in"),
    ],
)
def test_values_out_of_range_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(PHASE, **change)  # type: ignore[arg-type]


def test_the_length_of_the_phase_between_is_the_schedules() -> None:
    with pytest.raises(ConfigError, match=r"between\.epochs must stay 0"):
        Recipe(baseline=PHASE, between=PHASE, pruning=PHASE, finetune=PHASE)
    with pytest.raises(ConfigError, match=r"between\.warmup_epochs"):
        between = replace(PHASE, epochs=0, warmup_epochs=2.0)
        Recipe(baseline=PHASE, between=between, pruning=PHASE, finetune=PHASE)


def test_one_key_sets_the_precision_of_all_phases() -> None:
    def digest_of(*typed: str) -> tuple[str, set[str]]:
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            run = load(compose("config", ["name=x", "model=lenet5", *typed]), {})
        return run.digest, {phase.precision for phase in vars(run.recipe).values()}

    names = [field.name for field in fields(Recipe)]
    one_by_one = [f"recipe.{name}.precision=bf16" for name in names]
    assert digest_of("recipe.precision=bf16") == digest_of(*one_by_one)
    assert digest_of("recipe.precision=bf16")[1] == {"bf16"}
    assert digest_of()[1] == {"float32"}
    mixed = digest_of("recipe=short", "recipe.finetune.precision=float32")
    assert mixed[1] == {"bf16", "float32"}
    with pytest.raises(ConfigError, match="baseline: precision must be one of float32, bf16"):
        digest_of("recipe.precision=half")
