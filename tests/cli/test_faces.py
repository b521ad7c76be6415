"""Runs on faces: LFW instead of top-1, heads that are kept, and mistakes in one line."""

import pytest
import torch

import prunebench as package
from prunebench.checkpoints import load
from prunebench.records import Report, from_json
from prunebench.records.metrics import read_metrics
from tests.conftest import Command
from tests.faces import write_bin, write_pack

TINY = [
    "model=mobilefacenet", "model.embedding=8", "dataset=casia_webface",
    "dataset.image_size=[32,32]", "dataset.workers=0", "method=foad", "criterion.num_samples=4",
    "recipe=casia", "recipe.baseline.batch_size=12", "recipe.finetune.batch_size=12",
    "recipe.baseline.epochs=1", "recipe.finetune.epochs=1", "run.latency_batch=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    root = write_pack(tmp_path_factory.mktemp("faces") / "pack", people=3, each=4)
    write_bin(root / "lfw.bin", [True, False] * 10)
    write_bin(root / "agedb_30.bin", [True, False] * 10)
    return root


def only_report(folder):
    [path] = folder.rglob("report.json")
    return path, from_json(Report, path.read_text(), str(path))


@pytest.fixture(scope="module")
def done(faces, tmp_path_factory, python):
    outputs = tmp_path_factory.mktemp("outputs")
    found = Command(python, outputs)(*TINY, f"dataset.path={faces}", f"run.outputs={outputs}")
    assert found.returncode == 0, found.stderr
    return outputs, found


def test_what_is_reported_is_lfw(done):
    outputs, found = done
    path, report = only_report(outputs)
    for measured in report.measurements:
        verified = measured.verification
        assert list(verified) == ["lfw", "agedb_30"]
        assert (measured.test.metric, measured.test.seen) == ("lfw", 20)
        assert measured.test.correct == sum(verified["lfw"].correct)
        assert measured.test.accuracy == pytest.approx(verified["lfw"].accuracy)
        assert len(verified["lfw"].pairs) == 10
        assert measured.val is None
    assert "LFW %, fine-tuned (last)" in found.stdout
    assert "LFW: mean accuracy over the folds of pairs; drop" in found.stdout
    assert "top-1" not in found.stdout.lower() + found.stderr.lower()
    rows = {row["stage"]: row for row in read_metrics(path.parent / "metrics.jsonl")}
    assert rows["baseline-measured" if "baseline-measured" in rows else "pruned"]["test/lfw"] >= 0


def test_the_slim_file_is_the_embedding_net_and_the_store_has_the_head(done):
    outputs, _ = done
    path, _ = only_report(outputs)
    content = load(path.parent / "slim.pt")
    assert not [name for name in content["network"] if "head" in name]
    network = package.load(path.parent / "slim.pt")
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 8)
    [stored] = outputs.rglob("baseline.pt")
    assert load(stored)["head"].shape == (3, 8)


def test_a_checkpoint_without_a_head_gets_a_fresh_one_and_that_is_said(
    done, faces, tmp_path, prunebench
):
    outputs, _ = done
    [stored] = outputs.rglob("baseline.pt")
    bare = tmp_path / "bare.pt"
    torch.save(load(stored)["network"], bare)
    for file, fresh in ((bare, True), (stored, False)):
        found = prunebench(
            *TINY, f"dataset.path={faces}", f"run.outputs={tmp_path / file.stem}",
            f"baseline.checkpoint={file}", "recipe.finetune.epochs=0",
        )  # fmt: skip
        assert found.returncode == 0, found.stderr
        told = "no head for these 3 identities; training starts with a new one"
        assert (told in found.stderr) == fresh


def harmed(tmp_path, harm):
    root = write_pack(tmp_path / "pack", people=3, each=4)
    write_bin(root / "lfw.bin", [True, False] * 10)
    harm(root)
    return root


@pytest.mark.parametrize(
    ("harm", "words", "why"),
    [
        (lambda root: (root / "lfw.bin").unlink(), [], "has neither lfw.bin nor a folder lfw"),
        (lambda root: (root / "property").write_text("9,32,32"), [], "property says 9 identities"),
        (lambda root: (root / "train.idx").write_text("x"), [], "train.idx is no index of records"),
        (lambda root: None, ["dataset.image_size=[48,48]"], "32 x 32 is not 48 x 48"),
        (lambda root: None, ["dataset.image_size=[16,16]"], "32 x 32 is not 16 x 16"),
        (lambda root: None, ["model=resnet20"], "choose model=mobilefacenet"),
        (
            lambda root: None,
            ["criterion=oracle", "budget=uniform"],
            "needs the network's output for a label",
        ),
        (lambda root: None, ["recipe.finetune.head=arc"], "recipe.finetune: head must be one of"),
        (
            lambda root: None,
            ["dataset.protocol=megaface"],
            "must be one of insightface, sphereface",
        ),
    ],
)
def test_a_mistake_is_one_line(harm, words, why, tmp_path, prunebench):
    root = harmed(tmp_path, harm)
    other = any(word.startswith("model=") for word in words)
    own = [word for word in TINY if not (other and word.startswith("model"))]
    found = prunebench(*own, *words, f"dataset.path={root}", f"run.outputs={tmp_path / 'out'}")
    assert found.returncode == 2
    assert why in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_two_processes_whose_norms_see_all_faces_train_as_one(prunebench, faces, tmp_path, done):
    synced = [f"recipe.{phase}.sync_batchnorm=true" for phase in ("baseline", "finetune")]
    found = prunebench(*TINY, f"dataset.path={faces}", "run.processes=2", *synced)
    assert found.returncode == 0, found.stderr
    path, report = only_report(tmp_path)
    alone, _ = only_report(done[0])
    for mine, theirs in zip(epochs(path), epochs(alone), strict=True):
        assert (mine["stage"], mine["seen"]) == (theirs["stage"], 12)
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
    assert list(report.measurements[-1].verification) == ["lfw", "agedb_30"]
    [stored] = tmp_path.rglob("baseline.pt")
    [other] = done[0].rglob("baseline.pt")
    torch.testing.assert_close(load(stored)["head"], load(other)["head"], rtol=1e-3, atol=1e-4)


def epochs(report):
    return [row for row in read_metrics(report.parent / "metrics.jsonl") if "loss" in row]
