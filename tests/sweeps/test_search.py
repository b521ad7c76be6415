"""A search by Optuna uses validation accuracy and MACs, and resumes its study."""

import json

import pytest

from prunebench.cli.sweep import objectives

TINY = [
    "experiment=search_ratios", "model.width=0.25", "dataset=digits", "dataset.size=8",
    "dataset.train_size=64", "dataset.val_size=50", "dataset.test_size=50", "recipe=quick",
    "recipe.baseline.epochs=1", "recipe.finetune.epochs=1", "run.latency_batch=1",
]  # fmt: skip


def test_a_run_hands_over_validation_accuracy_and_macs(make_report):
    found = make_report(sizes=(500, 4000))
    assert objectives(None) is None
    last = found.at("finetuned_last")
    object.__setattr__(last, "val", type(last.test)(**{**vars(last.test), "correct": 750}))
    assert objectives(found) == (75.0, 4000)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Deprecated API features:DeprecationWarning")  # of optuna 2's
def test_a_search_goes_on_with_its_study(prunebench, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    refused = prunebench(*TINY, "dataset.val_size=0", "hydra.sweeper.n_trials=1")
    assert refused.returncode == 2
    assert "a search needs validation images; set dataset.val_size above 0" in refused.stderr
    for count in (2, 1):
        done = prunebench(*TINY, f"hydra.sweeper.n_trials={count}", "hydra.sweep.dir=found")
        assert done.returncode == 0, done.stderr
    trials = tried(tmp_path / "found" / "study.db")
    reports = [json.loads(path.read_text()) for path in (tmp_path / "found").rglob("report.json")]
    assert len(trials) == 3
    measured = {
        (100 * last["val"]["correct"] / last["val"]["seen"], last["macs"])
        for report in reports
        for last in report["measurements"]
        if last["stage"] == "finetuned_last"
    }
    assert {tuple(trial.values) for trial in trials} == measured
    assert "done" in prunebench("status", "found").stdout


def tried(path):
    import optuna

    return optuna.load_study("search_ratios", f"sqlite:///{path}").trials
