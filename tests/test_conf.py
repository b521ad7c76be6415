"""Every shipped option can be composed and built, and every option class has its YAML."""

import shlex
from dataclasses import fields, is_dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from inspect import isabstract
from pathlib import Path
from pkgutil import iter_modules

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf, open_dict

import prunebench
from prunebench.config import GROUPS, load, plain_values
from prunebench.config.presets import HOW, check_method, misplaced
from prunebench.criteria import Criterion, TrainingCriterion
from prunebench.errors import ConfigError
from prunebench.options import component, option
from prunebench.options.files import choices_of, conf_dir, read_option
from prunebench.options.schema import section
from prunebench.recipes import Phase, Recipe

PACKAGES = {
    "criterion": "criteria",
    "budget": "budgets",
    "repair": "repairs",
    "schedule": "schedules",
}
OPTIONS = sorted(
    (group, path.stem)
    for group in [*GROUPS, "recipe"]
    for path in (conf_dir() / group).glob("*.yaml")
    if path.stem != "timm" or find_spec("timm")  # which is no part of the dev extra
)
PHASES = sorted(path.stem for path in (conf_dir() / "recipe" / "phase").glob("*.yaml"))
#: values for keys an option leaves to the user
GIVEN = {
    "model=torchvision": ["model.name=resnet18"],
    "model=timm": ["model.name=resnet18"],
    "model=import": ["model.target=torch.nn.Linear"],
    "dataset=npz": ["dataset.path=arrays.npz"],
    "dataset=folder": ["dataset.path=photographs"],
    "budget=per_layer": ["budget.keep={conv1: 0.5}"],
    "model=found": ["model.report=report.json"],
}


def composed(*overrides):
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        return compose("config", overrides=["name=test", *overrides])


@cache
def values_of(group, option):
    """What stands in the section of a group once the option is chosen.

    That is what its YAML holds, unless Hydra is asked to put something to it, or elsewhere.
    """
    if group == "recipe":  # whose phases take up what the whole has
        with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
            return plain_values(compose("config", ["name=x", f"recipe={option}"]))["recipe"]
    path = conf_dir() / group / f"{option}.yaml"
    given = GIVEN.get(f"{group}={option}", [])
    if not given and not any(word in path.read_text() for word in ("defaults:", "@package")):
        return OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        alone = compose(f"{group}/{option}", overrides=given)
    return OmegaConf.to_container(alone[group], resolve=True)


def test_there_are_as_many_options_as_we_think():
    assert len(OPTIONS) >= 42
    assert {group for group, _ in OPTIONS} == {*GROUPS, "recipe"}
    assert PHASES == ["sgd"]
    folders = {
        path.parent.relative_to(conf_dir()).as_posix() for path in conf_dir().rglob("*.yaml")
    }
    others = {"recipe", "recipe/phase", "method", "experiment", "hydra/launcher", "."}
    assert folders == {*GROUPS, *others}


@pytest.mark.parametrize("base", PHASES)
def test_every_base_of_a_phase_builds_and_lists_all_its_keys(base):
    values = OmegaConf.load(conf_dir() / "recipe" / "phase" / f"{base}.yaml")
    built = section("recipe.phase", {**OmegaConf.to_container(values), "precision": "bf16"}, Phase)
    assert list(values) == [field.name for field in fields(built)]


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=str)
def test_every_option_builds_and_lists_all_its_keys(group, option):
    values = values_of(group, option)
    if group == "recipe":
        built = section("recipe", values, Recipe)
    else:
        built = component(group, values, GROUPS[group])
        assert {field.name for field in fields(built)} == values.keys() - {"_target_"}
    with pytest.raises(AttributeError):
        built.nothing = 1


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=str)
def test_what_is_a_list_says_so(group, option):
    values = values_of(group, option)
    if group == "recipe":
        name, values, schema = "recipe.finetune", values["finetune"], Phase
    else:
        name, schema = group, type(component(group, values, GROUPS[group]))
        values = {key: value for key, value in values.items() if key != "_target_"}
    for key, value in values.items():
        if isinstance(value, list | dict) or key == "epochs_at":
            with pytest.raises(
                ConfigError, match=rf"{name}\.{key} must be .*{key}=[\[{{].*; got 1"
            ):
                section(name, {**values, key: 1}, schema)


@pytest.mark.parametrize(
    "name",
    [
        f"{group}={path.stem}"
        for group in ("method", "experiment")
        for path in (conf_dir() / group).glob("*.yaml")
    ],
)
def test_every_preset_makes_a_run(name):
    if name == "experiment=search_ratios":
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    run = load(composed(name), {})
    assert run.recipe.finetune.epochs > 0 or run.settings.sensitivity  # which trains nothing


def test_the_preset_for_deployment_keeps_multiples_of_8_and_papers_stay_exact():
    presets = [
        path for group in ("method", "experiment") for path in (conf_dir() / group).iterdir()
    ]
    rounding = {path.stem: read_option(path).get("budget", {}).get("divisor") for path in presets}
    assert {name: by for name, by in rounding.items() if by is not None} == {"deploy": 8}
    for budget in ("macs", "latency"):
        assert load(composed("experiment=deploy", f"budget={budget}"), {}).budget.divisor == 8


EXPERIMENTS, METHODS = (
    sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
    for group in ("experiment", "method")
)
METHOD_CHOICES = {
    method: choices_of(read_option(conf_dir() / "method" / f"{method}.yaml")) for method in METHODS
}


def with_choices(*overrides):
    """What is composed, and group -> chosen option."""
    config = compose("config", overrides=["name=test", *overrides], return_hydra_config=True)
    chosen = config.hydra.runtime.choices
    with open_dict(config):
        del config["hydra"]
    return config, {str(k): str(v) for k, v in chosen.items() if "/" not in str(k)}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_method_over_an_experiment_is_that_method_or_one_line(experiment):
    assert all(set(HOW) <= chosen.keys() for chosen in METHOD_CHOICES.values())
    path = conf_dir() / "experiment" / f"{experiment}.yaml"
    own = choices_of(read_option(path)).get("method")
    for method in [name for name in METHODS if name != own]:
        typed = [f"experiment={experiment}", f"method={method}"]
        try:
            check_method({"experiment": experiment, "method": method}, [conf_dir()])
        except ConfigError as error:
            assert f"{experiment} already fixes how to prune" in str(error)
            typed = shlex.split(str(error).partition("in place of both, type: ")[2])
            assert typed[-1] == f"method={method}"
        # Over the others it is the same: what is to be typed differs in its last word alone, and
        # an experiment that lets all methods take over says nothing of how to prune.
        if method != "foad" and experiment != "quickstart":
            continue
        with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
            config, choices = with_choices(*typed)
        assert {g: choices[g] for g in HOW} == {g: METHOD_CHOICES[method][g] for g in HOW}
        told = ""
        try:
            load(config, choices)
        except ConfigError as error:
            told = str(error)
        assert "is not known" not in told


def over(method, group, option):
    """The section of `group` where `option` is typed over a method, without what is misplaced."""
    values = read_option(conf_dir() / "method" / f"{method}.yaml")
    section = {**read_option(conf_dir() / group / f"{option}.yaml"), **values.get(group, {})}
    if option == "per_layer":
        section["keep"] = {"*": 0.5}
    choices = {**METHOD_CHOICES[method], "method": method, group: option}
    for _, where, key, own in misplaced(choices, [conf_dir()]):
        if where == group:
            del section[key]
            section.update({key: own[key]} if key in own else {})
    return section


@pytest.mark.parametrize("group", HOW)
@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_sets_for_its_own_breaks_no_other_option(method, group):
    """Every method with every criterion, budget, repair and schedule."""
    for path in (conf_dir() / group).glob("*.yaml"):
        component(group, over(method, group, path.stem), GROUPS[group])
    own = read_option(conf_dir() / "method" / f"{method}.yaml").get(group, {})
    assert own.items() <= over(method, group, METHOD_CHOICES[method][group]).items()


def test_what_is_set_for_another_option_of_the_same_class_holds():
    """As the header of the experiment says: criterion=thinet_tpami sees its 10,000 images too."""
    choices = {"experiment": "thinet_conv", **METHOD_CHOICES["thinet"], "method": "thinet"}
    assert list(misplaced({**choices, "criterion": "thinet_tpami"}, [conf_dir()])) == []
    told = [row[:3] for row in misplaced({**choices, "criterion": "oracle"}, [conf_dir()])]
    assert told == [
        ("method=thinet", "criterion", "class_balanced"),
        ("experiment=thinet_conv", "criterion", "num_samples"),
    ]


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (["experiment=quickstart", "method=thinet"], ("thinet", "quick", 0.25)),
        (["experiment=quickstart", "method=thinet", "criterion=l1"], ("l1", "quick", 0.25)),
        (["experiment=quickstart", "method=sfp", "recipe=sfp"], ("l2", "sfp", 0.25)),
    ],
)
def test_the_quickstart_is_there_for_every_method(typed, kept):
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        config, choices = with_choices(*typed)
    check_method(choices, [conf_dir()])
    assert (choices["criterion"], choices["recipe"], config.model.width) == kept


def test_a_run_holds_values_of_their_fields_types():
    typed = ("model=resnet20", "criterion=l1", "budget=macs")
    whole = load(composed(*typed, "model.width=1", "budget.keep=1", "run.checkpoint_seconds=7"), {})
    real = load(composed(*typed, "model.width=1.0", "budget.keep=1.0"), {})
    assert str(whole.config["model"]) == str(real.config["model"])
    assert (str(whole.config["model"]["width"]), str(whole.config["budget"]["keep"])) == (
        "1.0",
        "1.0",
    )
    assert str(whole.config["run"]["checkpoint_seconds"]) == "7.0"
    assert whole.digest == real.digest
    patterns = load(composed(*typed[:2], "budget=per_layer", "budget.keep={conv1: 1}"), {})
    assert str(patterns.config["budget"]["keep"]) == "{'conv1': 1.0}"


def test_the_sweep_over_criteria_leaves_none_out():
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        overrides = ["experiment=criteria_cifar10", "name=test"]
        hydra = compose("config", overrides=overrides, return_hydra_config=True).hydra
    assert str(hydra.mode) == "RunMode.MULTIRUN"
    parser = OverridesParser.create()
    swept = parser.parse_override(f"criterion={hydra.sweeper.params.criterion}").value()
    criteria = {name for group, name in OPTIONS if group == "criterion"}
    watching = {
        n for n in criteria if isinstance(option("criterion", n, Criterion), TrainingCriterion)
    }
    assert {*swept.filter(sorted(criteria))} == criteria - watching
    for criterion in criteria - watching:
        run = load(composed("experiment=criteria_cifar10", f"criterion={criterion}"), {})
        assert (run.budget.keep, run.budget.allocation) == (0.5, "uniform")


@pytest.mark.parametrize(("group", "package"), PACKAGES.items())
def test_every_module_has_its_option(group, package):
    folder = Path(prunebench.__file__).parent / package
    for module in iter_modules([str(folder)]):
        found = import_module(f"prunebench.{package}.{module.name}")
        classes = [
            value
            for value in vars(found).values()
            if isinstance(value, type)
            and issubclass(value, GROUPS[group])
            and is_dataclass(value)
            and not isabstract(value)
            and value.__module__ == found.__name__
        ]
        if classes:
            assert (conf_dir() / group / f"{module.name.rstrip('_')}.yaml").exists()
