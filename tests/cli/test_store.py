"""``prunebench store``: lists, verifies and removes baselines."""

import json
import shutil

import pytest

TINY = [
    "model=mlp_512_512", "model.widths=[8,4]", "dataset=digits", "dataset.size=8",
    "dataset.train_size=64", "budget=macs", "recipe=quick", "recipe.baseline.epochs=1",
    "recipe.finetune.epochs=0", "run.latency_batch=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def outputs(python, tmp_path_factory):
    """One run, in a folder that stays as it is."""
    folder = tmp_path_factory.mktemp("run")
    words = ("-m", "prunebench", *TINY, "criterion=l1", "hydra.run.dir=outputs/a")
    done = python.run(*words, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "outputs"


@pytest.fixture
def stored(outputs, tmp_path):
    """A run and its baseline, and a baseline that nobody uses."""
    shutil.copytree(outputs, tmp_path / "outputs")
    [used] = (tmp_path / "outputs" / "baselines").iterdir()
    report = json.loads((tmp_path / "outputs" / "a" / "report.json").read_text())
    assert report["baseline"] == used.name
    idle = used.with_name("idle")
    (idle / "stages").mkdir(parents=True)
    for name in ("identity.json", "stages/baseline.pt"):
        (idle / name).write_bytes((used / name).read_bytes())
    return used, idle


def test_what_is_in_it(prunebench, stored):
    used, idle = stored
    told = prunebench("store", "list").stdout.splitlines()
    assert [line.split()[:2] for line in told[:2]] == [
        [used.name, "trained"],
        ["idle", "trained"],
    ]
    assert "1 reports  Mlp" in told[0]
    assert "0 reports  Mlp" in told[1]
    assert told[2].startswith("2 baselines")
    whole = prunebench("store", "show", "idle").stdout
    assert '"seed": 0' in whole
    assert used.name not in whole


def test_a_damaged_one_is_named(prunebench, stored):
    used, idle = stored
    done = prunebench("store", "verify")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"{used.name}  whole", "idle  whole, but its identity.json is of another",
    ]  # fmt: skip
    content = bytearray((idle / "stages" / "baseline.pt").read_bytes())
    content[200] ^= 1
    (idle / "stages" / "baseline.pt").write_bytes(content)
    done = prunebench("store", "verify")
    assert done.returncode == 1
    assert f"{used.name}  whole" in done.stdout
    assert "idle  damaged: " in done.stdout


def test_what_nobody_uses_goes_after_a_question(prunebench, stored):
    used, idle = stored
    asked = prunebench("store", "prune")
    assert (asked.returncode, asked.stderr) == (
        2,
        "prunebench: cannot ask without a terminal; add --yes to remove them\n",
    )
    assert idle.exists()
    assert prunebench("store", "prune", "--yes").returncode == 0
    assert used.exists()
    assert not idle.exists()
    assert prunebench("store", "prune", used.name, "--yes").returncode == 0
    assert not used.exists()


def test_one_that_is_being_trained_stays(prunebench, stored):
    from filelock import FileLock

    _, idle = stored
    (idle / "stages" / "baseline.pt").unlink()
    with FileLock(idle / ".lock"):
        assert "training" in prunebench("store", "list").stdout
        refused = prunebench("store", "prune", "idle", "--yes")
        assert refused.returncode == 2
        assert prunebench("store", "prune", "--yes").returncode == 0
    assert idle.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["list", "--outputs", "nowhere"], "no baselines in nowhere/baselines; --outputs FOLDER"),
        (["show", "x"], "the store has no x; prunebench store list names all"),
    ],
)
def test_mistakes_are_one_line(prunebench, tmp_path, words, said):
    (tmp_path / "outputs" / "baselines").mkdir(parents=True)
    done = prunebench("store", *words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"prunebench: {said}")
