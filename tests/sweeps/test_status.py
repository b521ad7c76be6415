"""Every state of a job is recognised from its files, and open jobs can be completed."""

import json
import os
import shlex
import shutil
import time
from dataclasses import replace

import pytest

from prunebench.options.files import conf_dir
from prunebench.records import INTERRUPTED, finish
from prunebench.records.attempts import ATTEMPTS, begin, changes, read_attempts
from prunebench.records.unfinished import IDENTITY, METRICS
from prunebench.records.waiting import WAITING, refuse
from prunebench.sweeps.plans import jobs_of
from prunebench.sweeps.progress import SILENCE, progress_in
from prunebench.sweeps.status import about, drawn, main, span, statuses

TINY = [
    "model=mlp_512_512", "model.widths=[8,4]", "dataset=digits", "dataset.size=8",
    "dataset.train_size=64", "budget=macs", "recipe=quick", "recipe.baseline.epochs=1",
    "recipe.finetune.epochs=0", "run.latency_batch=1",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A run of which nothing is known but that it began on this machine."""
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / IDENTITY).write_text("{}")
    begin(folder, {"torch": "2", "threads": 1})
    return folder


def test_a_run_without_a_process_is_lost(folder):
    rows = [
        {"stage": "baseline", "epoch": epoch, "epochs": 9, "seconds": 2.0} for epoch in (1, 2, 3)
    ]
    (folder / METRICS).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    job = progress_in(folder)
    assert (job.state, job.stage, job.epoch, job.eta) == ("lost", "baseline", "3/9", None)
    assert job.silent < 60


def test_a_run_whose_folder_is_held_is_running(folder):
    from filelock import FileLock

    rows = [{"stage": "s", "epoch": epoch, "epochs": 9, "seconds": 2.0} for epoch in (1, 2, 3)]
    (folder / METRICS).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with FileLock(folder / ".lock"):
        job = progress_in(folder)
    assert (job.state, job.eta) == ("running", 12.0)


def test_a_run_that_waits_says_for_whom(folder):
    from filelock import FileLock

    (folder / WAITING).write_text("process 7 on node7, which trains this baseline (x)")
    assert progress_in(folder).state == "lost"  # its process is gone
    with FileLock(folder / ".lock"):
        job = progress_in(folder)
    assert (job.state, about(job)) == (
        "waiting", "for process 7 on node7, which trains this baseline (x)",
    )  # fmt: skip


def test_of_another_machine_the_last_sign_of_life_tells(folder):
    text = (folder / ATTEMPTS).read_text()
    (folder / ATTEMPTS).write_text(json.dumps(json.loads(text) | {"host": "node7"}))
    assert progress_in(folder).state == "running"
    long_ago = time.time() - 2 * SILENCE
    for path in [*folder.iterdir(), folder]:
        os.utime(path, (long_ago, long_ago))
    job = progress_in(folder)
    assert (job.state, job.host) == ("lost", "node7")


@pytest.mark.parametrize(
    ("kind", "state", "why"),
    [("ValueError", "failed", "finetune: boom"), (INTERRUPTED, "interrupted", "")],
)
def test_failed_and_interrupted_are_two(folder, make_report, make_failure, kind, state, why):
    finish(folder, replace(make_failure(make_report(0), message="boom\nmore"), kind=kind))
    job = progress_in(folder)
    assert (job.state, job.why) == (state, why)


def test_a_report_is_the_end(folder, make_report):
    finish(folder, make_report(0))
    assert progress_in(folder).state == "done"


def test_damaged_files_end_nothing(folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    (folder / ATTEMPTS).write_text("{")
    (folder / METRICS).write_text("{\n{\n")
    assert progress_in(folder).state == "lost"
    (folder / "failure.json").write_text("[")
    assert progress_in(folder).why == "its failure.json is damaged"
    (folder.parent / "multirun.yaml").write_text("[")
    told = drawn(statuses(folder.parent))
    assert "1 failed" in told
    assert "cannot be completed" in told
    (folder.parent / "multirun.yaml").unlink()
    [status] = statuses(folder.parent)
    assert (status.commands, len(status.damaged)) == ([], 1)


def test_what_may_change_the_last_bits_between_attempts_is_told(tmp_path):
    begin(tmp_path, {"torch": "2", "threads": 1})
    assert changes(read_attempts(tmp_path)) == []
    attempts = begin(tmp_path, {"torch": "2", "threads": 4})
    assert changes(attempts) == ["threads 4, before 1"]
    assert [attempt["pid"] for attempt in attempts] == [os.getpid()] * 2


def test_the_jobs_of_a_grid():
    assert jobs_of(["a=1", "b=x,y", "c=0,1"]) == [
        ["a=1", f"b={b}", f"c={c}"] for b in "xy" for c in "01"
    ]
    assert jobs_of(["a=interval(0,1)"]) == []


def test_a_glob_stands_for_the_options_there_are(tmp_path):
    (tmp_path / "criterion").mkdir()
    (tmp_path / "criterion" / "mine.yaml").touch()
    words = ["criterion=glob([mi*,l*],exclude=l2)"]
    assert jobs_of(words, [conf_dir(), tmp_path]) == [["criterion=l1"], ["criterion=mine"]]
    assert jobs_of(["criterion=glob(zz*)"], [conf_dir()]) == []


def test_watching_empties_terminals_and_no_files(folder, monkeypatch, capsys):
    naps = []

    def nap(seconds):
        naps.append(seconds)
        if len(naps) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", nap)
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(KeyboardInterrupt):
        main([str(folder.parent), "--watch", "7"])
    assert naps == [7.0] * 3
    out = capsys.readouterr().out
    assert out.count("1 lost") == 3
    assert "\033" not in out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with pytest.raises(KeyboardInterrupt):
        naps[:] = [7.0] * 2
        main([str(folder.parent), "--watch"])
    assert naps[2] == 5.0
    assert capsys.readouterr().out.startswith("\033[H\033[2J")


def test_spans():
    assert [span(s) for s in (-1, 5, 119, 120, 7200, 2e5)] == [
        "0 s", "5 s", "119 s", "2 min", "2 h", "2 d",
    ]  # fmt: skip


def test_a_sweep_is_completed_by_the_command_that_is_printed(prunebench, tmp_path):
    done = prunebench("-m", *TINY, "criterion=l1,random,l2")
    assert done.returncode == 0, done.stderr
    [sweep] = (tmp_path / "outputs" / "sweeps").iterdir()
    assert prunebench("status", "--resume").stdout == "nothing to complete\n"
    first, second, third = sorted(path for path in sweep.iterdir() if path.is_dir())
    untouched = (third / "report.json").read_bytes()
    shutil.rmtree(first)
    (second / "report.json").unlink()
    told = prunebench("status")
    assert told.returncode == 0, told.stderr
    assert "1 done, 1 lost, 1 not begun" in told.stdout
    assert "0 (criterion=l1)" in told.stdout
    table = prunebench("table")
    relative = sweep.relative_to(tmp_path)
    assert table.stderr == (
        f"prunebench: 1 of 3 jobs of {relative} have not started: prunebench status {relative} "
        "--resume prints the commands that complete it\n"
    )
    assert "unfinished" in table.stdout
    refuse(sweep, 0, [*TINY, "criterion=l1"], "because")
    told = prunebench("status").stdout
    assert "1 done, 1 failed, 1 lost" in told and "failed  because" in told
    [line] = prunebench("status", "--resume").stdout.splitlines()
    program, *words = shlex.split(line)
    assert program == "prunebench"
    done = prunebench(*words)
    assert done.returncode == 0, done.stderr
    [status] = json.loads(prunebench("status", "--json").stdout)
    assert [job["state"] for job in status["jobs"]] == ["done"] * 3
    assert status["commands"] == []
    assert (third / "report.json").read_bytes() == untouched


def test_a_single_run_is_completed_too(prunebench, tmp_path):
    assert prunebench(*TINY, "criterion=l1", "hydra.run.dir=outputs/a").returncode == 0
    (tmp_path / "outputs" / "a" / "report.json").unlink()
    [line] = prunebench("status", "--resume").stdout.splitlines()
    done = prunebench(*shlex.split(line)[1:])
    assert done.returncode == 0, done.stderr
    assert prunebench("status").stdout.startswith("outputs: 1 done")


def test_a_configuration_of_ones_own_is_gone_on_with(prunebench, tmp_path):
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "mine.yaml").write_text("defaults: [config, _self_]\nrun: {seed: 7}\n")
    own = ["--config-dir", "my", "--config-name", "mine"]
    assert prunebench("-m", *own, *TINY, "criterion=glob(l*)").returncode == 0
    [sweep] = (tmp_path / "outputs" / "sweeps").iterdir()
    first, second = sorted(path for path in sweep.iterdir() if path.is_dir())
    shutil.rmtree(second)
    assert "1 (criterion=l2)" in prunebench("status").stdout
    [line] = prunebench("status", "--resume").stdout.splitlines()
    done = prunebench(*shlex.split(line)[1:])
    assert done.returncode == 0, done.stderr
    seeds = [json.loads((run / "report.json").read_text())["seed"] for run in (first, second)]
    assert seeds == [7, 7]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere is no folder; give the one that runs or sweeps are in"),
        (["."], "no run or sweep in .; run prunebench first"),
        ([".", "--watch", "-1"], "--watch takes seconds above 0, got -1.0"),
        ([".", "--watch=0"], "--watch takes seconds above 0, got 0.0"),
    ],
)
def test_nothing_to_look_at_is_one_line(prunebench, words, said):
    done = prunebench("status", *words)
    assert done.returncode == 2
    assert done.stderr == f"prunebench: {said}\n"


@pytest.mark.slow
def test_a_sweep_is_completed_at_once(prunebench, tmp_path):
    assert prunebench("-m", *TINY, "criterion=l1,random").returncode == 0
    [sweep] = (tmp_path / "outputs" / "sweeps").iterdir()
    shutil.rmtree(sorted(path for path in sweep.iterdir() if path.is_dir())[0])
    done = prunebench("status", "--go")
    assert done.returncode == 0, done.stderr
    assert "2 done" in prunebench("status").stdout
