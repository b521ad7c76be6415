"""Pruning during training through configuration and command line."""

import json
import re

import pytest
import torch
from hydra import compose, initialize_config_dir

from prunebench.channels import trace
from prunebench.config import load
from prunebench.contracts import Moment, Observer
from prunebench.errors import ConfigError
from prunebench.options.files import conf_dir
from prunebench.run import baseline
from prunebench.run.in_training import observer_of
from prunebench.training.loop import train
from prunebench.training.stage import Stage

TINY = [
    "model=mlp_500_300", "model.widths=[24,16]", "dataset=digits", "dataset.size=8",
    "recipe=quick", "recipe.baseline.epochs=1", "recipe.finetune.epochs=1",
    "recipe.pruning.epochs=3",
]  # fmt: skip


def run(*overrides):
    choices = dict(part.split("=", 1) for part in overrides if "." not in part.split("=")[0])
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        return load(compose("config", overrides=["name=test", *overrides]), choices)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["criterion=cac", "budget=macs"], "criterion=cac prunes while the network is trained"),
        (
            ["criterion=aofp", "budget=macs", "schedule=iterative"],
            "choose schedule=during_training instead of schedule=iterative",
        ),
        (
            ["criterion=l1", "budget=macs", "schedule=during_training"],
            "schedule=during_training needs a criterion that watches the training, and "
            "criterion=l1 does not; choose criterion=cac or aofp, or schedule=oneshot",
        ),
        (
            ["criterion=cac", "budget=own", "schedule=during_training"],
            "budget=own does not say when criterion=cac has pruned enough",
        ),
        (
            ["criterion=cac", "budget=macs", "budget.divisor=8", "schedule=from_scratch"],
            "budget.divisor=8 rounds counts",
        ),
        (
            ["criterion=cac", "budget=macs", "schedule=from_scratch",
             "recipe.pruning.label_smoothing=0.1"],
            "recipe.pruning.label_smoothing must be 0 for criterion=cac",
        ),
        (
            ["criterion=aofp", "budget=own", "schedule=during_training",
             "recipe.pruning.epochs=0", "recipe.pruning.warmup_epochs=0"],
            "recipe.pruning.epochs must be at least 1, because channels are pruned in this phase",
        ),
        (["schedule=from_scratch", "schedule.start=zero"], "start must be one of scratch, base"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_one_line(overrides, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        run(*overrides)


def test_theta_alone_may_decide():
    run("criterion=aofp", "budget=own", "schedule=during_training")


class Counter(Observer):
    """Notes how many steps an epoch has."""

    def start(self, network, optimizer):
        self.steps = set()

    def after_step(self, moment: Moment) -> bool:
        self.steps.add(moment.steps)
        return False


def test_the_criterion_knows_how_many_steps_there_are():
    """A last batch of one image is none: it joins the one before. Then the ramp ends with it."""
    choices = [
        *TINY, "criterion=cac", "budget=macs", "schedule=from_scratch", "criterion.n_min=1",
        "criterion.prune_every=1", "criterion.max_step=0.5", "criterion.end=1.0",
    ]  # fmt: skip
    data = run(*choices).dataset.load()
    asked = run(*choices, f"recipe.pruning.batch_size={(len(data.train) - 1) // 4}")
    assert len(data.train) % asked.recipe.pruning.batch_size == 1
    network, cpu = baseline.build(asked, data), torch.device("cpu")
    observer, shown = observer_of(
        asked, trace(network, torch.zeros(1, *data.shape)), data, cpu, dict
    )
    counter, work = Counter(), observer.work
    stage = Stage(name="pruning", seed=0, device=cpu, observers=[observer, counter])
    train(network, shown, asked.recipe.pruning, stage)
    assert counter.steps == {work.steps} == {4}
    [limit] = work.limits
    assert limit.amount(observer.plan()) <= limit.target


@pytest.mark.parametrize(
    "method",
    [
        ["criterion=cac", "schedule=from_scratch", "criterion.n_min=10", "criterion.prune_every=4",
         "criterion.max_step=0.1", "criterion.holdout=0.1"],
        ["criterion=aofp", "schedule=during_training", "criterion.draws_per_half=4",
         "criterion.warmup_steps=2", "criterion.theta=0.5"],
    ],
    ids=["cac", "aofp"],
)  # fmt: skip
def test_the_whole_way_through_the_command(prunebench, tmp_path, method):
    done = prunebench(*TINY, *method, "budget=macs", "budget.keep=0.6", "name=tiny")
    assert done.returncode == 0, done.stderr
    [path] = tmp_path.glob("outputs/tiny/*/report.json")
    report = json.loads(path.read_text())
    measured = {row["stage"]: row for row in report["measurements"]}
    assert measured["pruned"]["macs"] <= 0.6 * measured["baseline"]["macs"]
    assert measured["finetuned_last"]["params"] < measured["baseline"]["params"]
    assert list(report["seconds"]).index("pruning") < list(report["seconds"]).index("finetune")
    rows = map(json.loads, path.with_name("metrics.jsonl").read_text().splitlines())
    seen = {row["stage"]: row["seen"] for row in rows if "seen" in row}
    [step] = report["steps"]
    if "criterion.holdout=0.1" in method:
        assert seen["pruning"] == seen["finetune"] - round(0.1 * seen["finetune"])
        assert step["counts"] == {}
    else:
        assert set() < {*step["counts"]} <= {*step["kept"]}
        assert all(tally["halves"] >= tally["passed"] >= 0 for tally in step["counts"].values())


def test_a_dry_run_says_what_it_will_go_for(prunebench):
    done = prunebench(*TINY, "method=aofp_quick", "run.dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "2 groups with 40 channels are pruned during" in done.stdout
    assert "-> at most " in done.stdout


def test_a_budget_that_is_not_met_is_told(prunebench):
    done = prunebench(
        *TINY, "criterion=aofp", "schedule=during_training", "criterion.theta=0", "budget=macs"
    )
    assert done.returncode == 0, done.stderr
    assert "MACs where the budget allows" in done.stdout + done.stderr
