"""Runs are told apart by what their files contain, not by the files' names."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from prunebench.config import load
from prunebench.errors import DataError
from prunebench.options.files import conf_dir
from prunebench.records import FAILURE, REPORT, finish
from prunebench.records.identity import contents, deciding
from prunebench.run import baseline
from tests.photographs import write_tree

TINY = [
    "model=mlp_512_512", "model.widths=[8,4]", "dataset=npz", "dataset.val_size=0", "criterion=l1",
    "budget=macs", "recipe=quick", "recipe.baseline.epochs=1", "recipe.finetune.epochs=0",
    "run.latency_batch=1",
]  # fmt: skip


def write_images(path, seed, side=4):
    """Random images of two classes."""
    draw = np.random.default_rng(seed)
    arrays = {}
    for part, size in (("train", 64), ("test", 8)):
        arrays[f"{part}_images"] = draw.integers(0, 256, (size, side, side, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(size) % 2
    np.savez(path, **arrays)


def run(*overrides):
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        return load(compose("config", overrides=["name=test", *overrides]), {}, files=True)


def npz_run(path):
    return run(*TINY, f"dataset.path={path}")


def entry(of):
    network = baseline.build(of, of.dataset.load())
    return baseline.entry(of, network).name


def test_images_go_by_what_they_are(tmp_path):
    first, copy, other = (tmp_path / name for name in ("first.npz", "copy.npz", "other.npz"))
    write_images(first, seed=0)
    shutil.copy(first, copy)
    write_images(other, seed=1)
    before = npz_run(first)
    assert npz_run(copy).digest == before.digest
    assert npz_run(other).digest != before.digest
    assert entry(npz_run(copy)) == entry(before)
    assert entry(npz_run(other)) != entry(before)
    write_images(first, seed=2)  # under its old name
    assert npz_run(first).digest != before.digest
    assert entry(npz_run(first)) != entry(before)


def test_an_archive_of_cifar10_goes_by_what_it_holds(tmp_path):
    def of(root):
        return run("dataset=cifar10", f"dataset.root={root}", "dataset.val_size=0",
                   "dataset.download=true")  # fmt: skip

    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        write_images(tmp_path / name / "cifar10.npz", seed, side=32)
    one, same, other = (of(tmp_path / name) for name in "abc")
    published = of(tmp_path / "to be fetched")
    assert one.digest == same.digest
    assert len({one.digest, other.digest, published.digest}) == 3
    assert entry(one) == entry(same)
    assert entry(one) != entry(other)
    # the published files are checked when they are read: they go by the option's name alone
    assert published.contents == {}
    (tmp_path / "a" / "cifar-10-batches-py").mkdir()
    assert of(tmp_path / "a").digest == published.digest


def test_a_checkpoint_goes_by_what_it_holds(tmp_path):
    def of(name):
        return run("dataset=digits", f"baseline.checkpoint={tmp_path / name}").digest

    (tmp_path / "a.pt").write_bytes(b"weights")
    (tmp_path / "b.pt").write_bytes(b"weights")
    before = of("a.pt")
    assert before == of("b.pt")
    (tmp_path / "a.pt").write_bytes(b"others")
    assert before != of("a.pt")


def test_a_found_structure_goes_by_its_report(tmp_path, make_report):
    def of(name):
        return run("dataset=digits", "model=found", f"model.report={tmp_path / name / REPORT}")

    for name, kept in (("a", 3), ("b", 3), ("c", 5)):
        report = make_report()
        report.plan["conv1"] = list(range(kept))
        finish(tmp_path / name, report)
    assert of("a").digest == of("b").digest
    assert of("a").digest != of("c").digest


def test_what_no_file_decides_is_told_by_names_alone():
    made = run("dataset=digits", "criterion=l1", "budget=macs")
    assert made.contents == {}
    assert made.digest == run("dataset=digits", "criterion=l1", "budget=macs", "name=x").digest
    config = {"dataset": {"root": "data", "variant": "cifar10"}, "name": "x", "run": {"seed": 1}}
    names_alone = {"dataset": {"variant": "cifar10"}, "run": {"seed": 1}}
    assert deciding(config, {}) == names_alone
    assert deciding(config, {"dataset.root": "1f"})["dataset"]["root"] == "1f"


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match=r"^dataset\.path: cannot read .+ \(No such file or dir"):
        contents({"dataset.path": tmp_path / "gone.npz"})


def test_a_folder_goes_by_names_sizes_and_times_of_its_files(tmp_path):
    def of(name, *words):
        return run("dataset=folder", f"dataset.path={tmp_path / name}", *words).digest

    write_tree(tmp_path / "a", {"train": 2})
    shutil.copytree(tmp_path / "a", tmp_path / "b")  # with the times
    first = of("a")
    assert first == of("b") == of("a", "dataset.workers=3", "dataset.prefetch=4")
    assert first != of("a", "dataset.crop=0.5")
    (tmp_path / "b" / ".DS_Store").touch()
    assert first == of("b")
    image = tmp_path / "b" / "train" / "cat" / "0.JPEG"
    found = image.stat()
    os.utime(image, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    later = of("b")
    os.utime(image, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert later != first == of("b")
    image.rename(image.with_name("9.JPEG"))
    assert of("b") not in (first, later)


def test_a_run_does_not_go_on_with_other_data(prunebench, tmp_path):
    words = [*TINY, "dataset.path=data.npz", "run.resume=true"]
    write_images(tmp_path / "data.npz", seed=0)
    assert prunebench(*words, "hydra.run.dir=outputs/x").returncode == 0
    shutil.copy(tmp_path / "data.npz", tmp_path / "kept.npz")
    write_images(tmp_path / "data.npz", seed=1)
    [report] = tmp_path.rglob(REPORT)
    before = report.read_bytes()
    refused = prunebench(*words, "hydra.run.dir=outputs/x")
    assert refused.returncode == 2
    assert "outputs/x holds another run: it differs in dataset.path" in refused.stderr
    assert report.read_bytes() == before
    anew = prunebench(*words)
    assert anew.returncode == 0, anew.stderr
    assert "trained, now in the baseline store" in anew.stderr
    moved = prunebench(*words, "dataset.path=kept.npz")
    assert "finished before" in moved.stderr
    contents = [json.loads(path.read_text())["contents"] for path in tmp_path.rglob(REPORT)]
    assert len({found["dataset.path"] for found in contents}) == len(contents) == 2


def test_a_checkpoint_is_on_record(prunebench, tmp_path):
    write_images(tmp_path / "data.npz", seed=0)
    words = [*TINY, "dataset.path=data.npz"]
    assert prunebench(*words).returncode == 0
    [stored] = tmp_path.rglob("baseline.pt")
    torch.save(torch.load(stored, weights_only=True)["network"], tmp_path / "mine.pt")
    assert prunebench(*words, "baseline.checkpoint=mine.pt", "name=mine").returncode == 0
    [path] = (tmp_path / "outputs" / "mine").rglob(REPORT)
    assert set(json.loads(path.read_text())["contents"]) == {"dataset.path", "baseline.checkpoint"}


RANK = """
from dataclasses import dataclass
import torch
from prunebench.criteria import Criterion, GroupRank

@dataclass(frozen=True, kw_only=True)
class Mine(Criterion):
    def rank(self, evidence):
        return {g.name: GroupRank(SCORES) for g in evidence.groups}
"""


def test_the_code_of_ones_own_options_tells_runs_apart(prunebench, tmp_path):
    words = [*TINY, "dataset.path=data.npz", "criterion=mine", "run.resume=true"]
    words = ["--config-dir", "my", *words, "hydra.run.dir=outputs/x"]
    write_images(tmp_path / "data.npz", seed=0)
    (tmp_path / "my" / "criterion").mkdir(parents=True)
    (tmp_path / "my" / "criterion" / "mine.yaml").write_text("_target_: mine.Mine\n")
    own = tmp_path / "mine.py"
    own.write_text(RANK.replace("SCORES", "scores"))
    failed = prunebench(*words, "-m", "hydra.sweep.dir=outputs", "hydra.sweep.subdir=x")
    assert failed.returncode == 2
    assert (tmp_path / "outputs" / "x" / FAILURE).exists()
    own.write_text(RANK.replace("SCORES", "torch.arange(g.size).double()"))
    mended = prunebench(*words)
    assert mended.returncode == 0, mended.stderr
    assert "outputs/x failed: it starts anew" in mended.stderr
    assert sorted(path.name for path in (tmp_path / "outputs" / "x").glob("*.json")) == [
        REPORT,
        "run.json",
    ]
    own.write_text(RANK.replace("SCORES", "-torch.arange(g.size).double()"))
    refused = prunebench(*words)
    assert refused.returncode == 2
    assert "holds another run: it differs in the code of criterion._target_" in refused.stderr
    anew = prunebench(*words, "hydra.run.dir=outputs/y")
    assert "nothing to resume" in anew.stderr
    table = prunebench("table", "outputs", "--columns", "method,seeds")
    assert table.stdout.count("criterion._target_=sha256") == 2


def test_a_network_of_ones_own_with_other_code_has_another_baseline(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    spec = "from prunebench.models.mlp import Mlp\n\nclass Net(Mlp):\n    pass\n"
    found = []
    for text in (spec, spec, f"{spec}# another\n"):
        (tmp_path / "ownnet.py").write_text(text)
        made = run(*TINY, "dataset=digits", "model._target_=ownnet.Net")
        assert list(made.contents) == ["model._target_"]
        found.append((made.digest, entry(made)))
    assert found[0] == found[1]
    assert found[0][0] != found[2][0]
    assert found[0][1] != found[2][1]
