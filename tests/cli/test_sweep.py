"""Sweeps have one folder each, with a folder per job whose name says which job it is."""

import json

TINY = [
    "model=mlp_512_512",
    "model.widths=[8,4]",
    "dataset=digits",
    "dataset.size=8",
    "dataset.train_size=64",
    "budget=macs",
    "recipe=quick",
    "recipe.baseline.epochs=1",
    "recipe.finetune.epochs=1",
    "run.latency_batch=1",
]


def jobs(folder):
    """The folders of the one sweep below `folder`, by name, with what each says it has chosen."""
    [sweep] = (folder / "outputs" / "sweeps").iterdir()
    reports = {
        path.parent.name: json.loads(path.read_text()) for path in sweep.rglob("report.json")
    }
    return {name: report["choices"]["criterion"] for name, report in sorted(reports.items())}


def test_a_sweep_needs_no_name_and_is_resumed(prunebench, tmp_path):
    done = prunebench("-m", *TINY, "criterion=l1,random")
    assert done.returncode == 0, done.stderr
    made = {"0-mlp_512_512-digits-l1": "l1", "1-mlp_512_512-digits-random": "random"}
    assert jobs(tmp_path) == made
    begun = [line for line in done.stderr.splitlines() if line.endswith("begins")]
    assert begun == [
        "prunebench: job 0 (criterion=l1) begins",
        "prunebench: job 1 (criterion=random) begins",
    ]
    [sweep] = (tmp_path / "outputs" / "sweeps").iterdir()
    table = f"prunebench table {sweep.relative_to(tmp_path)}"
    assert done.stderr.endswith(f"prunebench: 0 of 2 jobs failed; their table again: {table}\n")
    last = done.stdout.rpartition("mlp_512_512 on digits\n")[2]
    assert "l1, macs, recipe" in last
    assert "random, macs, recipe" in last
    again = prunebench("-m", *TINY, "criterion=l1,random", "run.resume=true")
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("finished before") == 2
    reports = [path.parents[1] for path in (tmp_path / "outputs").rglob("report.json")]
    assert reports == [sweep, sweep]


def test_an_option_misspelt_in_a_sweep_is_one_line(prunebench):
    done = prunebench("-m", "criterion=l1,foda", "budget=macs", "run.seed=0,1")
    assert done.returncode == 2
    assert done.stderr.startswith("prunebench: 'criterion=foda' is not known; valid: aofp, apoz, ")
    assert done.stderr.endswith("did you mean 'foad'?\n")
    assert done.stderr.count("\n") == 1


def test_a_sweep_over_nothing_is_no_success(prunebench, tmp_path):
    done = prunebench("-m", *TINY, "criterion=glob(zz*)", "run.seed=0,1")
    assert done.returncode == 2
    assert done.stderr == (
        "prunebench: criterion=glob(zz*) matches nothing, so there are no jobs\n"
    )
    assert not (tmp_path / "outputs").exists()


def test_a_job_that_fails_says_which_it_is_and_the_sweep_counts_it(prunebench):
    # flags and settings in whatever order
    done = prunebench(
        *TINY[:4], TINY[-3], "run.dry_run=true", "-m", "budget=macs,own", "criterion=l1"
    )
    assert done.returncode == 2
    assert "prunebench: job 1 (budget=own): budget=own takes the criterion's own" in done.stderr
    assert done.stderr.endswith("prunebench: 1 of 2 jobs failed\n")


def test_a_name_may_be_a_path_or_hold_other_characters(prunebench, tmp_path):
    done = prunebench("-m", *TINY, "criterion=l1", "name='study/ä b:*'")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "outputs" / "sweeps").glob("*/0-study/ä b[:][*]"))) == 1


def test_a_name_that_cannot_be_a_folder_is_one_line(prunebench, tmp_path):
    for name, answer in (
        ("x" * 300, "name is too long"),
        ("../../x", "name must be a text and not lead out"),
    ):
        done = prunebench("-m", *TINY, "criterion=l1,random", f"name={name}")
        assert done.returncode == 2, done.stderr
        assert f"{answer}" in done.stderr
        assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("run.json"))
