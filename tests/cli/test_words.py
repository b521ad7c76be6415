"""Words that cannot be meant give one line before any job; all are tried in one process."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from prunebench.cli import VERBS, main, sweep
from prunebench.cli.mistakes import PLUGINS
from prunebench.errors import nearest

LIST = "'budget.exclude=[\"a=b\"]'"


@pytest.fixture
def told(monkeypatch, capsys, tmp_path):
    """What the command prints, and its exit code, where no plugin is installed."""
    monkeypatch.chdir(tmp_path)
    Plugins.instance()  # they have told the store of theirs by now
    known = ConfigStore.instance().repo["hydra"]
    for group in ("launcher", "sweeper"):
        monkeypatch.setitem(known, group, {"basic.yaml": known[group]["basic.yaml"]})

    def command(*typed):
        monkeypatch.setattr(sys, "argv", ["prunebench", *typed])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "")
        monkeypatch.setattr(sweep, "BEGUN", [])
        monkeypatch.setattr(sweep, "MISTAKES", [])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return command


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ([], "nothing to run yet; try prunebench experiment=quickstart"),
        (["-m"], "nothing to run yet"),
        (["--config-dir", "."], "nothing to run yet"),
        (["help"], "'help' is not key=value; did you mean --help?"),
        (
            ["model=vgg16", "recipe.finetune.decay_of={weight: 0.0}"],
            "holds nothing yet; with + it does: '+recipe.finetune.decay_of={weight: ...}'",
        ),
        (["foad"], "did you mean criterion=foad or method=foad or recipe=foad?"),
        (["criterion"], "'criterion' needs an option: criterion=..., which prunebench criterion"),
        (["gibberish"], "'gibberish' is not key=value; see prunebench --help"),
        (["baseline.checkpoint=~/x.pt"], "type \"baseline.checkpoint='$HOME/x.pt'\"\n"),
        (["baseline.checkpoint=~/a=3.pt"], "type \"baseline.checkpoint='$HOME/a=3.pt'\"\n"),
        (["baseline.checkpoint=a=3.pt"], "type 'baseline.checkpoint=\"a=3.pt\"'\n"),
        (["-m", "run.outputs=a=b"], "type 'run.outputs=\"a=b\"'\n"),
        (['name=a"b=c'], 'type \'name="a\\"b=c"\'\n'),
        (["budget.exclude=[a=b]"], LIST),
        (["budget.exclude=[a"], "brackets must be closed"),
        (["--seed", "1"], "unrecognized arguments: --seed; settings are typed without dashes: run"),
        (["--model=resnet20"], "without dashes: model=resnet20"),
        (["--dry-run=true"], "without dashes: run.dry_run=true"),
        (["--list"], "unrecognized arguments: --list; settings are typed as key=value"),
        (["--cfg", "jobs"], "argument --cfg/-c: invalid choice: 'jobs'"),
        (
            ["-m", "criterion=l1,random", "--cfg", "job"],
            "only one of --run, -m (--multirun), --cfg",
        ),
        (["--experimental-rerun", "no.pickle"], "prunebench rerun report.json repeats a run"),
        (["hydra/launcher=slurm"], "slurm needs a plugin: pip install 'prunebench[slurm]'"),
        (["hydra/launcher=submitit_local"], "pip install 'prunebench[slurm]'"),
        (["hydra/launcher=ray_cluster"], "pip install 'prunebench[ray]'"),
        (["hydra/launcher=parallel"], "joblib needs a plugin: pip install 'prunebench[joblib]'"),
        (["experiment=search_ratios"], "optuna needs a plugin: pip install 'prunebench[optuna]'"),
        (["hydra/launcher=nope"], "'hydra/launcher=nope' is not known; valid: basic, parallel"),
        (["experiment=quickstart", "criterion.t=${nope}"], "criterion.t: Interpolation key 'nope'"),
        (["modle=vgg16"], "did you mean 'model'?"),
        (["methd=foad"], "did you mean 'method'?"),
        (["experimnt=quickstart"], "did you mean 'experiment'?"),
        (["criterion=L1"], "did you mean 'l1'?"),
        (["model=resnet21"], "did you mean 'resnet20'?"),
        (["method=FOAD"], "did you mean 'foad'?"),
        (["criterion=foda", "--help"], "did you mean 'foad'?"),
        (["criterio", "--help"], "'criterio' is not known; valid: budget, criterion, dataset"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_it_is_one_line(told, typed, answer, tmp_path):
    code, out, err = told(*typed)
    assert (code, out) == (2, ""), err
    assert err.startswith("prunebench: ")
    assert err.count("\n") == 1, err
    assert answer in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("word", ["baseline.checkpoint=a=3 x.pt", "name=a\"b=$HOME'c=d"])
def test_what_it_says_to_type_arrives_as_it_was_meant(told, word):
    _, _, err = told(word)
    typed = err.partition("; type ")[2].strip()
    done = subprocess.run(["sh", "-c", f"printf %s {typed}"], capture_output=True, text=True)
    code, out, err = told(done.stdout, "model=resnet20", "--cfg", "job", "--resolve")
    assert code == 0, err
    assert word.partition("=")[2] in out.replace("''", "'")


def test_a_word_is_near_another_whatever_its_case_and_by_its_number():
    resnets = ["resnet20", "resnet32", "resnet56", "resnet110"]
    assert nearest("resnet21", resnets) == "resnet20"
    assert nearest("ResNet50", resnets) == "resnet56"
    assert nearest("resnet101", resnets) == "resnet110"
    assert nearest("L1", ["l1", "l2"]) == "l1"
    assert nearest("xyz", resnets) == ""


def test_every_extra_that_is_named_is_one():
    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    for plugin, package in PLUGINS.items():
        name, _, extra = package.rstrip("]").partition("[")
        if extra:
            assert name == "prunebench"
            assert any(plugin in needed for needed in extras[extra])


def test_an_option_is_explained_by_its_own_yaml(told):
    code, out, _ = told("criterion=foad", "--help")
    assert code == 0
    for part in ("criterion=foad   (", "criterion/foad.yaml)", "Shi et al.", "rule: v2023  ", "# "):
        assert part in out
    _, out, _ = told("-h", "recipe=quick", "method=sfp")
    assert "recipe/phase=sgd" in out
    assert "to read them): criterion=l2 budget=uniform repair=bn_recalibration schedule=soft" in out
    _, out, _ = told("recipe/phase=sgd", "experiment=quickstart", "--help")
    assert "weight_decay: 5.0e-4  # L2 penalty" in out
    assert "model=vgg16 dataset=digits method=foad recipe=quick" in out


def test_a_group_is_explained_by_its_options(told):
    for group in ("criterion", "recipe", "method", "experiment", "tracker", "model"):
        code, out, _ = told(group, "--help")
        assert code == 0
        names = {path.stem for path in (Path(__file__).parents[2] / "conf" / group).glob("*.yaml")}
        lines = [line.split(maxsplit=1) for line in out.splitlines()[2:]]
        assert {name for name, _ in lines} == names
        assert all(len(said) > 20 for _, said in lines)
        assert not [said for _, said in lines if said.endswith((" al.", " J."))]


def test_options_of_ones_own_are_explained_too(told, tmp_path):
    (tmp_path / "mine" / "criterion").mkdir(parents=True)
    (tmp_path / "mine" / "criterion" / "odd.yaml").write_text("# Keeps the odd ones.\na: 1\n")
    code, out, _ = told("--config-dir", "mine", "criterion=odd", "--help")
    assert (code, "# Keeps the odd ones.\na: 1\n" in out) == (0, True)


def test_flags_may_stand_anywhere(told):
    code, out, err = told("model=resnet20", "--cfg", "job", "criterion=l1", "-p", "criterion")
    assert code == 0, err
    assert "prunebench.criteria.l1.L1" in out


def test_a_reader_may_stop_reading():
    with subprocess.Popen(
        [sys.executable, "-m", "prunebench", "-sc", "install=bash"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_answers_in_one_line(told, verb):
    code, out, _ = told(verb, "--help")
    assert code == 0
    assert out.startswith(f"usage: prunebench {verb} ")
    code, out, err = told(verb, "--no-such-flag")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"prunebench {verb}: ")


@pytest.mark.parametrize(
    ("typed", "meant"), [("tabel", "table"), ("stats", "status"), ("reprodce", "reproduce")]
)
def test_a_mistyped_verb_is_answered_with_the_nearest(told, typed, meant):
    code, _, err = told(typed, "outputs")
    assert code == 2
    assert err == f"prunebench: '{typed}' is not known; did you mean prunebench {meant}?\n"
