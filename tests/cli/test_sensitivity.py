"""``run.sensitivity``: every group cut alone from the dense network, on validation images."""

import json

SMALL = [
    "experiment=sensitivity", "dataset=digits", "dataset.size=16", "dataset.train_size=48",
    "dataset.val_size=32", "dataset.test_size=16", "model.width=0.25", "model.depth=14",
    "recipe=quick", "recipe.baseline.epochs=1", "recipe.finetune.epochs=0", "run.latency_batch=2",
    "run.sensitivity=[0.25,0.5]",
]  # fmt: skip


def test_each_group_is_cut_alone(prunebench):
    done = prunebench(*SMALL)
    assert done.returncode == 0, done.stderr
    [path] = (prunebench.folder / "outputs").rglob("report.json")
    report = json.loads(path.read_text())
    points = report["sensitivity"]
    assert [point["group"] for point in points[::2]] == report["steps"][0]["groups"]
    assert [point["share"] for point in points[:2]] == [0.5, 0.25]
    assert all(point["kept"] == int(point["share"] * point["channels"]) for point in points)
    assert {point["seen"] for point in points} == {32}
    dense, pruned = (report["measurements"][i]["macs"] for i in (0, 1))
    assert all(pruned < point["macs"] < dense for point in points)  # the others stay whole


def test_what_cannot_be_measured_is_refused(prunebench):
    for words, told in (
        (["dataset.val_size=0"], "run.sensitivity is measured on validation images"),
        (["run.sensitivity=[1.0]"], "sensitivity must be null or shares between 0 and 1"),
        (["criterion=cac", "budget=macs", "schedule=during_training"], "has no scores before"),
    ):
        done = prunebench(*SMALL, *words)
        assert done.returncode == 2
        assert told in done.stderr and done.stderr.count("\n") == 1
