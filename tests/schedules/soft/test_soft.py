"""schedule=soft in the configuration."""

import pytest
from hydra import compose, initialize_config_dir

from prunebench.config import load
from prunebench.errors import ConfigError
from prunebench.options.files import conf_dir
from prunebench.schedules.soft import Soft


def run(*overrides):
    choices = dict(part.split("=", 1) for part in overrides if "." not in part.split("=")[0])
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        return load(compose("config", overrides=["name=test", *overrides]), choices)


def test_the_method_is_what_the_paper_does():
    made = run("model=resnet20", "method=sfp")
    assert made.schedule == Soft(start="scratch", every=1, zero_first=True, tied=True)
    assert made.choices == {"model": "resnet20", "method": "sfp"}
    assert made.config["budget"]["keep"] == 0.7
    assert made.recipe.pruning.epochs == 200


def test_fpgm_takes_the_gradients_away_as_its_authors_do():
    made = run("model=resnet20", "method=fpgm")
    assert made.schedule == Soft(
        start="scratch", every=1, mask_gradients=True, zero_first=True, tied=True
    )
    assert made.config["budget"]["rounding"] == "removed"
    assert (made.config["budget"]["keep"], made.config["criterion"]["norm_first"]) == (0.6, 0.0)
    assert made.dataset.val_size == 0


def test_one_step_over_all_groups():
    [step] = Soft(start="baseline", every=1).steps(["a", "b"])
    assert (step.groups, step.share, step.epochs) == (("a", "b"), 1.0, 0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["criterion=foad", "budget=uniform"], "selects between epochs by weights alone, and"),
        (["criterion=taylor", "budget=uniform"], "criterion=taylor needs more; choose criteri"),
        (["criterion=cac", "budget=macs"], "criterion=cac needs more; choose criterion=l2, l1"),
        (["criterion=bn_probability", "budget=own"], "budget=own has no target that rounds"),
        (["criterion=l2", "budget=uniform", "schedule.every=0"], "every must be at least 1, got"),
        (
            ["criterion=l2", "budget=uniform", "recipe.pruning.epochs=0"],
            "recipe.pruning.epochs must be at least 1, because channels are pruned in this phase",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(overrides, message):
    with pytest.raises(ConfigError) as caught:
        run("recipe=quick", *overrides, "schedule=soft")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
