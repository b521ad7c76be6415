"""Every method with every budget and schedule passes a dry run or is refused in one line."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import open_dict

from prunebench.config import load
from prunebench.config.presets import leave_out
from prunebench.errors import PrunebenchError
from prunebench.options.files import conf_dir, option_names
from prunebench.run.dry_run import dry_run

METHODS, BUDGETS, SCHEDULES = (
    option_names(group, [conf_dir()]) for group in ("method", "budget", "schedule")
)
SMALL = ("name=walk", "model=resnet20", "model.width=0.25", "dataset=digits", "dataset.size=16")


def composed(*typed):
    """The configuration as the command makes it: a method's words for its own options left out."""
    config = compose("config", overrides=[*SMALL, *typed], return_hydra_config=True)
    choices = {str(k): str(v) for k, v in config.hydra.runtime.choices.items() if "/" not in str(k)}
    with open_dict(config):
        del config["hydra"]
    list(leave_out(config, choices, [conf_dir()], typed))
    return config, choices


def walked(method, budget, schedule, capsys):
    """What a dry run prints, or the line that refuses it."""
    keep = ["budget.keep={layer1.*: 0.5}"] if budget == "per_layer" else []
    seen = ["criterion.n_min=1"] if method.startswith("cac") else []  # there are few digits
    typed = [f"method={method}", f"budget={budget}", f"schedule={schedule}", *keep, *seen]
    try:
        dry_run(load(*composed(*typed)))
    except PrunebenchError as error:
        assert "\n" not in str(error)
        assert "is not known" not in str(error)
        return str(error)
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def conf():
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        yield


@pytest.mark.parametrize(
    ("method", "budget", "schedule", "says"),
    [
        ("aofp", "own", "during_training", "are pruned during"),
        ("cac", "uniform", "from_scratch", "channels: 84 -> at most 42"),
        ("probability", "uniform", "oneshot", "surgery: masked and slimmed network agree"),
        ("l1", "per_layer", "oneshot", "surgery: masked and slimmed network agree"),
        ("slimming", "macs", "iterative", "surgery: masked and slimmed network agree"),
        ("foad", "own", "iterative", "budget=own has no target that rounds could approach"),
    ],
)
def test_one_of_each_kind(method, budget, schedule, says, capsys):
    assert says in walked(method, budget, schedule, capsys)


@pytest.mark.parametrize(("divisor", "told"), [(1, True), (8, False)])
def test_it_names_widths_that_may_cost_the_speed_up(divisor, told, capsys):
    typed = ["criterion=l1", "budget=uniform", "budget.keep=0.6", "model.width=0.5"]
    dry_run(load(*composed(*typed, f"budget.divisor={divisor}")))
    said = capsys.readouterr().out
    # of 8, 16 and 32 channels
    assert ("widths of 4, 9, 19 may cost you the speed-up: budget.divisor=8" in said) == told


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_whole_walk(method, capsys):
    done = 0
    for budget in BUDGETS:
        for schedule in SCHEDULES:
            done += "dry run" in walked(method, budget, schedule, capsys)
    assert done >= 3
