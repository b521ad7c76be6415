"""``prunebench rerun``: repeats a run from its report alone, and compares the results."""

import json

import numpy as np
import pytest

TINY = [
    "model=mlp_512_512", "model.widths=[8,4]", "dataset=npz", "dataset.path=a.npz",
    "dataset.val_size=16", "criterion=l1", "budget=macs", "recipe=quick",
    "recipe.baseline.epochs=1", "recipe.finetune.epochs=1", "run.latency_batch=1",
]  # fmt: skip


def write_images(path, seed=0):
    draw = np.random.default_rng(seed)
    arrays = {}
    for part, size in (("train", 64), ("test", 8)):
        arrays[f"{part}_images"] = draw.integers(0, 256, (size, 4, 4, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(size) % 2
    np.savez(path, **arrays)


@pytest.fixture
def report(prunebench, tmp_path):
    """The report of a finished run in the folder of the test."""
    write_images(tmp_path / "a.npz")
    done = prunebench(*TINY)
    assert done.returncode == 0, done.stderr
    [path] = tmp_path.rglob("report.json")
    return path.rename(tmp_path / "report.json")  # a report is enough


def changed(report, change):
    """The report with something in it changed."""
    values = json.loads(report.read_text())
    change(values)
    report.write_text(json.dumps(values))


#: a command whose run is told to stop as it begins
STOPPED = """
import signal
from prunebench import cli
from prunebench.run import runner
runner.execute = lambda *_: signal.raise_signal(signal.SIGTERM)
cli.main()
"""


def test_a_run_is_repeated_and_equal(prunebench, python, tmp_path, report):
    (tmp_path / "a.npz").rename(tmp_path / "moved.npz")
    changed(report, lambda values: values["config"]["run"].pop("processes"))  # as in older ones
    changed(report, lambda values: values["environment"].update(torch="2.0.0"))
    done = prunebench("rerun", "report.json", "dataset.path=moved.npz", "--into", "again")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "equal"), done.stderr
    assert "not as it was: torch 2.0.0 in the report, " in done.stderr
    assert "baseline: trained in this run" in done.stderr
    again = json.loads((tmp_path / "again" / "report.json").read_text())
    words = ["rerun", "report.json", "dataset.path=moved.npz", "--into", "other"]
    stopped = python.run("-c", STOPPED, *words, cwd=tmp_path)
    said = "interrupted by SIGTERM; prunebench rerun report.json --into other continues it"
    assert (stopped.returncode, stopped.stderr.splitlines()[-1]) == (75, f"prunebench: {said}")
    assert again["digest"] == json.loads(report.read_text())["digest"]
    # the folder itself will do, and what has been done in it is not done again
    changed(tmp_path / "again" / "report.json", _one_less_right)
    words = ["rerun", ".", "dataset.path=moved.npz", "--into", "again"]
    assert "holds 2 reports; name one" in prunebench(*words).stderr
    done = prunebench("rerun", "report.json", "dataset.path=moved.npz", "--into", "again")
    assert done.returncode == 1
    assert "this run has finished before" in done.stderr
    right = again["measurements"][0]["test"]["correct"]
    said = f"not equal: baseline.test.correct: {right} in the report, {right - 1} here"
    assert done.stdout.splitlines()[-1] == said


def _one_less_right(values):
    values["measurements"][0]["test"]["correct"] -= 1


def test_what_cannot_be_repeated_is_one_line(torch_free, tmp_path, report):
    def said(*words):
        done = torch_free.run("-m", "prunebench", "rerun", *words, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("prunebench") and done.stderr.count("\n") == 1, done.stderr
        assert not done.stdout
        return done.stderr

    assert "nowhere.json is not there" in said("nowhere.json")
    assert "criterion.p would make it another run" in said("report.json", "criterion.p=1")
    assert "'quick' is not key=value" in said("report.json", "quick")
    assert "required: report" in said()
    (tmp_path / "torn.json").write_text(report.read_text()[:100])
    assert "torn.json is not valid JSON" in said("torn.json")
    (tmp_path / "a.npz").unlink()
    assert "there is no file a.npz" in said("report.json")


def test_other_data_is_refused(prunebench, tmp_path, report):
    write_images(tmp_path / "a.npz", seed=1)
    done = prunebench("rerun", "report.json")
    assert done.returncode == 2
    assert "dataset.path: the file is not the one of the report" in done.stderr
    assert not list(tmp_path.rglob("run.json"))[1:]  # nothing was begun
