"""A stored baseline is measured once for all runs on a machine that share it."""

import json
from types import SimpleNamespace as Some

import torch

from prunebench.run import kept

TINY = [
    "model=mlp_512_512", "model.widths=[8,4]", "dataset=digits", "dataset.size=8",
    "dataset.train_size=64", "budget=macs", "recipe=quick", "recipe.baseline.epochs=1",
    "recipe.finetune.epochs=1", "run.latency_batch=1",
]  # fmt: skip
SAID = "baseline: measured before on this machine"


def baseline_in(folder):
    report = json.loads((folder / "report.json").read_text())
    return report["measurements"][0], (folder / "predictions" / "baseline.npz").read_bytes()


def test_it_is_shared_where_it_holds_and_made_anew_where_not(prunebench, tmp_path):
    def run(name, *words):
        done = prunebench(*TINY, f"hydra.run.dir={name}", *words)
        assert done.returncode == 0, done.stderr
        return SAID in done.stderr

    assert not run("a", "criterion=l1")
    assert run("b", "criterion=random")
    assert baseline_in(tmp_path / "a") == baseline_in(tmp_path / "b")
    assert not run("c", "criterion=random", "run.latency_batch=2")
    [entry] = (tmp_path / "outputs" / "baselines").iterdir()
    files = sorted((entry / "measured").iterdir())
    assert len(files) == 2
    for path in files:
        path.write_bytes(path.read_bytes()[:-100])  # damaged
    assert not run("d", "criterion=l2")
    assert baseline_in(tmp_path / "d")[0]["test"] == baseline_in(tmp_path / "a")[0]["test"]
    assert not run("e", "criterion=l2", "baseline.store=false")
    weights = torch.load(entry / "stages" / "baseline.pt", weights_only=True)["network"]
    torch.save(weights, tmp_path / "given.pt")
    given = "baseline.checkpoint=given.pt"
    assert not run("f", "criterion=l1", given)  # others trained it, for all we know
    assert run("g", "criterion=l1", given, "run.seed=1", "recipe.baseline.epochs=9")
    assert baseline_in(tmp_path / "g") == baseline_in(tmp_path / "f")
    weights[[*weights][-1]] += 1
    torch.save(weights, tmp_path / "given.pt")
    assert not run("h", "criterion=l1", given)
    assert not run("i", "criterion=l1", given, "baseline.store=false")


def test_every_stage_has_its_answers_and_its_row(prunebench, tmp_path):
    """Also the best epoch's, should that be the last one."""
    done = prunebench(*TINY, "criterion=l1", "hydra.run.dir=a")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "a/report.json").read_text())
    stages = [one["stage"] for one in report["measurements"]]
    assert stages[-1] == "finetuned_best_val"
    assert sorted(stages) == sorted(path.stem for path in (tmp_path / "a/predictions").iterdir())
    rows = [json.loads(line) for line in (tmp_path / "a/metrics.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows if "test/top1" in row] == stages


def test_so_is_one_that_leaves_no_answers_as_of_faces(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "place_of", lambda *_: tmp_path / "kept.pt")
    said, data = [], Some(damaged=Some(found=[]))
    run = Some(baseline=Some(store=True))
    for _ in range(2):
        context = Some(
            run=run, folder=tmp_path, data=data, progress=Some(note=said.append),
            measured_json=lambda *_: "figures",
        )  # fmt: skip
        assert kept.measurement(context, "baseline", torch.nn.ReLU()) == "figures"
    assert said == [SAID]
