"""All controls that a method has to beat, for one network and ratio."""

import json

import pytest
from hydra import compose, initialize_config_dir

from prunebench.config import load
from prunebench.errors import ConfigError
from prunebench.options.files import conf_dir
from prunebench.records.identity import control
from prunebench.reports.load import load_runs

TINY = [
    "model=mlp_500_300", "model.widths=[24,16]", "dataset=digits", "dataset.size=8",
    "recipe=quick", "recipe.baseline.epochs=2", "recipe.finetune.epochs=1", "run.latency_batch=1",
]  # fmt: skip


def test_the_experiment_runs_them_all(prunebench):
    done = prunebench("experiment=controls", *TINY, "budget.keep=0.5")
    assert done.returncode == 0, done.stderr
    assert "nothing was pruned" not in done.stderr  # as it is meant to be
    found = {report.choices["method"]: (path, report) for path, report in
             load_runs([prunebench.folder / "outputs" / "sweeps"]).reports}  # fmt: skip
    assert {method: control(report) for method, (_, report) in found.items()} == {
        "random_channels": "random channels",
        "uniform_width": "uniform width",
        "found_structure": "found structure",
        "dense": "dense",
    }
    for method, (path, report) in found.items():
        before, after = report.at("baseline").macs, report.at("finetuned_last").macs
        assert after == before if method == "dense" else 0.3 * before < after <= 0.5 * before
        rows = map(json.loads, path.with_name("metrics.jsonl").read_text().splitlines())
        stages = [row["stage"] for row in rows if "epoch" in row]
        fresh = ["redrawn"] * 2 if method in ("uniform_width", "found_structure") else []
        assert stages == ["baseline"] * 2 + fresh + ["finetune"]
    inner, scaled = (found[name][1] for name in ("found_structure", "random_channels"))
    assert {k: len(v) for k, v in inner.plan.items()} == {k: len(v) for k, v in scaled.plan.items()}
    marked = done.stdout.partition("mlp_500_300 on digits\n")[2]
    assert marked.count("(control)") >= 4


def built(*overrides):
    choices = dict(word.split("=") for word in overrides)
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        return load(compose("config", overrides=["name=test", *overrides]), choices)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["criterion=l1", "budget=macs", "schedule=redraw", "repair=least_squares"],
            "repair=least_squares repairs weights, but schedule=redraw discards them; choose "
            "repair=none",
        ),
        (["criterion=foad", "budget=own", "schedule=never"], "no target that rounds"),
        (["criterion=cac", "budget=macs", "schedule=redraw"], "prunes while the network"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(overrides, said):
    with pytest.raises(ConfigError, match=said):
        built(*overrides)


def test_weights_are_drawn_anew_and_keep_their_variance(prunebench):
    """Untrained, the structure answers with other numbers than the baseline's weights would."""
    import torch

    from prunebench.checkpoints.slimmed import load as load_slim

    words = [*TINY, "recipe.baseline.epochs=0", "recipe.baseline.warmup_epochs=0",
             "recipe.finetune.epochs=0", "recipe.finetune.warmup_epochs=0", "criterion=l1",
             "budget=macs"]  # fmt: skip
    kernels = {}
    for schedule in ("oneshot", "redraw"):
        done = prunebench(*words, f"schedule={schedule}", f"name={schedule}")
        assert done.returncode == 0, done.stderr
        [path] = (prunebench.folder / "outputs" / schedule).glob("*/slim.pt")
        kernels[schedule] = load_slim(path).state_dict()
    a, b = kernels["oneshot"], kernels["redraw"]
    name = next(key for key, value in a.items() if value.dim() > 1 and a[key].shape[1] < 64)
    assert a[name].shape == b[name].shape
    assert not torch.isclose(a[name], b[name]).any()
    assert b[name].std() > a[name].std()  # scaled to the smaller fan-in
