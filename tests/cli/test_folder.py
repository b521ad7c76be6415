"""A command writes only to the folder of its own run."""

import pytest
import yaml

TINY = [
    "model=mlp_512_512", "model.widths=[8,4]", "dataset=digits", "dataset.size=8",
    "dataset.train_size=64", "budget=macs", "recipe=quick", "recipe.baseline.epochs=1",
    "recipe.finetune.epochs=0", "run.latency_batch=1",
]  # fmt: skip


def everything(folder):
    """Every file below `folder` with its bytes."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_command_that_is_refused_changes_nothing(prunebench, tmp_path):
    words = [*TINY, "criterion=l1", "hydra.run.dir=outputs/a"]
    done = prunebench(*words)
    assert done.returncode == 0, done.stderr
    before = everything(tmp_path)
    notes = tmp_path / "outputs" / "a" / ".hydra"
    assert yaml.safe_load((notes / "overrides.yaml").read_text()) == words[:-1]
    assert yaml.safe_load((notes / "config.yaml").read_text())["dataset"]["size"] == 8
    assert "runtime" in yaml.safe_load((notes / "hydra.yaml").read_text())["hydra"]
    for more, answer in (
        (["budget.keep=0.9"], "outputs/a holds another run: it differs in budget.keep;"),
        (["criterion=l2", "run.resume=true"], "holds another run: it differs in criterion._target"),
        (["run.seed=1", "run.resume=true"], "outputs/a holds another run: it differs in run.seed;"),
        (["criterion.colour=red"], "'criterion.colour' is not known"),
        (["budget.keep=-1"], "budget: keep must"),
    ):
        refused = prunebench(*words, *more)
        assert refused.returncode == 2, refused.stderr
        assert answer in refused.stderr
        assert refused.stderr.count("\n") == 1
        assert everything(tmp_path) == before
    # neither does a command that has nothing left to do, or nothing to write
    for more in ([], ["run.resume=true"], ["run.dry_run=true", "budget.keep=0.9"]):
        assert prunebench(*words, *more).returncode == 0
        assert everything(tmp_path) == before


@pytest.mark.parametrize("left", ["stages/prune-oneshot.pt", "report.json"])
def test_what_a_run_without_a_name_left_is_nobodys(prunebench, tmp_path, left):
    held = tmp_path / "a" / left
    held.parent.mkdir(parents=True)
    held.write_text("of another run")
    refused = prunebench(*TINY, "criterion=l1", "hydra.run.dir=a")
    assert refused.returncode == 2
    assert f"a holds {left} of an unknown run, because" in refused.stderr
    assert refused.stderr.count("\n") == 1
    there = everything(tmp_path)
    assert there.pop(tmp_path / "a" / ".lock", b"") == b""
    assert there == {held: b"of another run"}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([*TINY, "criterion=l1", "run.dry_run=true"], 0),
        ([*TINY, "criterion=l1", "budget=own"], 2),
        ([*TINY, "criterion=l1", "hydra.job.chdir=true"], 2),
        ([*TINY, "criterion=l1", "name=deep/er", "recipe.finetune.lr=0"], 2),
        (["-m", *TINY, "criterion=l1,nonsense"], 2),
        (["-m", *TINY, "criterion=l1,l2", "budget=own"], 2),
        (["-m", *TINY, "criterion=l1,l2", "run.dry_run=true"], 0),
    ],
)
def test_what_trains_nothing_leaves_no_folder(prunebench, tmp_path, words, code):
    done = prunebench(*words)
    assert done.returncode == code, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_of_the_users_stays(prunebench, tmp_path):
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "prunebench.md").write_text("my notes")
    refused = prunebench(*TINY, "criterion=l1", "budget=own", "hydra.run.dir=outputs")
    assert refused.returncode == 2
    assert [path.name for path in tmp_path.rglob("*")] == ["outputs", "prunebench.md"]


def test_a_sweep_keeps_what_says_so(prunebench, tmp_path):
    done = prunebench("-m", *TINY, "criterion=l1", "budget.keep=-1,0.5")
    assert done.returncode == 2
    [sweep] = (tmp_path / "outputs" / "sweeps").iterdir()
    assert {path.name for path in sweep.iterdir()} == {
        "multirun.yaml", "1-mlp_512_512-digits-l1", ".refused-0.json",
    }  # fmt: skip
    notes = sweep / "1-mlp_512_512-digits-l1" / ".hydra"
    assert "budget.keep=0.5" in yaml.safe_load((notes / "overrides.yaml").read_text())
