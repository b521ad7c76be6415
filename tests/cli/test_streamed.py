"""A run on images that are read when needed: killed, resumed, and with damaged files."""

import json
import random
import shutil
import signal

import pytest
import torch

from tests.cli.test_resume import follow, outcome
from tests.photographs import write_tree

#: eight steps to an epoch, each with a checkpoint behind it
STREAMED = [
    "model=vgg16",
    "model.width=0.05",
    "dataset=folder",
    "dataset.image_size=16",
    "criterion=apoz",
    "criterion.num_samples=16",
    "budget=uniform",
    "budget.keep=0.5",
    "recipe=quick",
    "recipe.baseline.epochs=2",
    "recipe.baseline.batch_size=8",
    "recipe.baseline.warmup_epochs=0",
    "recipe.finetune.epochs=1",
    "recipe.finetune.batch_size=8",
    "run.checkpoint_seconds=0",
    "run.latency_batch=2",
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("photographs"), {"train": 20, "val": 4, "test": 4})


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "readers", [(0, 3), pytest.param((0, 1, 3, 1, 0), marks=pytest.mark.slow)], ids=["two", "five"]
)
def test_killed_and_read_by_others_equals_uninterrupted(python, tree, tmp_path, readers):
    """`readers` are the processes that read the images until each kill."""
    words = ["-m", "prunebench", *STREAMED, f"dataset.path={tree}", "run.resume=true"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    with python.start(*words, "dataset.workers=0", cwd=whole) as process:
        changes = follow(process, whole, None)
    moments = random.Random(20241126)
    for workers in readers:
        with python.start(*words, f"dataset.workers={workers}", cwd=broken) as process:
            follow(process, broken, moments.randint(3, changes // (len(readers) + 1)))
            assert process.returncode == -signal.SIGKILL
    with python.start(*words, "dataset.workers=1", cwd=broken) as process:
        follow(process, broken, None)
        assert process.returncode == 0
    weights, record, rows = outcome(whole)
    resumed_weights, resumed_record, resumed_rows = outcome(broken)
    assert (record, rows) == (resumed_record, resumed_rows)
    for name, value in weights.items():
        assert torch.equal(value, resumed_weights[name]), name


def test_damaged_images_are_named_once_and_in_the_report(prunebench, tree, tmp_path):
    copy = shutil.copytree(tree, tmp_path / "copy")
    for name in ("train/cat/3.JPEG", "test/dog/0.JPEG"):
        (copy / name).write_bytes((copy / name).read_bytes()[:200])
    words = [*STREAMED, f"dataset.path={copy}", "recipe.finetune.epochs=0"]
    done = prunebench(*words, "dataset.allow_damaged=0.1", "dataset.workers=1")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("train/cat/3.JPEG") == done.stderr.count("test/dog/0.JPEG") == 1
    [path] = (tmp_path / "outputs").rglob("report.json")
    report = json.loads(path.read_text())
    assert {*report["damaged"]} == {"train/cat/3.JPEG", "test/dog/0.JPEG"}
    assert report["measurements"][0]["test"]["seen"] == 11
    few = prunebench(*words, "dataset.workers=0")
    assert few.returncode == 2
    assert "more than dataset.allow_damaged=0.001 allows" in few.stderr.splitlines()[-1]
    assert "Traceback" not in few.stderr


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["dataset.path=nowhere"], "there is no folder nowhere"),
        (["dataset.path=."], "must hold at least two folders with images"),
        (["dataset=imagenet", "dataset.path=."], "there is no folder train"),
        (["dataset.val=valid", "dataset.path=."], "dataset.val: there is no folder valid"),
        (["dataset.image_size=4"], "image"),
    ],
)
def test_mistakes_are_one_line(prunebench, tree, typed, said):
    done = prunebench(*STREAMED, f"dataset.path={tree}", *typed)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
