"""Recipes: ranges, and that every YAML builds with every field given."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from prunebench.config import section
from prunebench.errors import ConfigError
from prunebench.recipes import Phase, Recipe

CONF = Path(__file__).resolve().parents[2] / "conf" / "recipe"
PHASE = Phase(
    epochs=10, batch_size=8, optimizer="sgd", lr=0.1, momentum=0.9, nesterov=False,
    weight_decay=1e-4, decay="all", schedule="multistep", milestones=[0.5], gamma=0.1,
    warmup_epochs=0.0, label_smoothing=0.0, precision="float32", channels_last=False,
)  # fmt: skip


def build(name: str) -> Recipe:
    values = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert isinstance(values, dict)
    return section("recipe", values, Recipe)


def test_every_yaml_builds_and_gives_every_field() -> None:
    names = sorted(path.stem for path in CONF.glob("*.yaml"))
    assert {"cac", "cifar", "foad", "mnist", "quick", "short"} <= set(names)
    for name in names:
        assert isinstance(build(name).finetune, Phase)
        assert (CONF / f"{name}.yaml").read_text().startswith("# ")
        given = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
        assert isinstance(given, dict)
        for phase in ("baseline", "between", "pruning", "finetune"):
            assert set(given[phase]) == {field.name for field in fields(Phase)}


def test_foad_is_what_the_authors_code_does() -> None:
    tune = build("foad").finetune
    assert (tune.epochs, tune.batch_size, tune.lr, tune.momentum) == (160, 64, 0.1, 0.9)
    assert (tune.weight_decay, tune.decay, tune.nesterov) == (1e-4, "all", False)
    assert replace(tune, batch_size=128) == build("foad").baseline


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
        ({"precision": "fp16"}, "precision must be one of float32, bf16"),
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
    assert PHASE.lasting(3) == replace(PHASE, epochs=3)
