"""A run that a cluster or a person stops saves at once, and can be resumed."""

import json
import signal
import subprocess
import sys

import pytest

from prunebench import interruption
from prunebench.records import Report, from_json, to_json
from prunebench.records.equality import first_difference
from prunebench.records.metrics import read_metrics
from prunebench.run.ledger import Ledger

#: a checkpoint is written by the last epoch's end or a signal alone
LONG = [
    "model=mlp_512_512", "model.widths=[16,8]", "dataset=digits", "dataset.size=8",
    "dataset.train_size=512", "criterion=l1", "budget=macs", "recipe=quick",
    "recipe.baseline.epochs=12", "recipe.baseline.batch_size=8", "recipe.finetune.epochs=1",
    "run.latency_batch=1", "run.checkpoint_seconds=1000", "hydra.run.dir=outputs/a",
]  # fmt: skip


def report_in(folder):
    return from_json(Report, (folder / "report.json").read_text(), "report")


@pytest.fixture(scope="module")
def undisturbed(python, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    done = python.run("-m", "prunebench", *LONG, cwd=folder)
    assert done.returncode == 0, done.stderr
    return report_in(folder / "outputs" / "a")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_job_that_is_taken_off_its_node_goes_on_by_itself(
    prunebench, tmp_path, undisturbed, number
):
    folder = tmp_path / "outputs" / "a"
    with prunebench.start(*LONG) as process:
        process.wait_for("epoch 2/12")
        process.send_signal(number)
        assert process.wait(60) == interruption.START_AGAIN
        last = process.stderr.splitlines()[-1]
    assert last == (
        f"prunebench: interrupted by {number.name}; progress is saved: continue with the same "
        "command and run.resume=true"
    )
    failure = json.loads((folder / "failure.json").read_text())
    assert (failure["kind"], failure["stage"]) == ("interrupted", "baseline")
    table = prunebench("table")
    assert table.returncode == 0
    assert "interrupted: outputs/a (baseline, epoch" in table.stdout
    assert "failed" not in table.stdout
    done = prunebench(*LONG)  # as a cluster does: the very same words
    assert done.returncode == 0, done.stderr
    assert "continuing the run in " in done.stderr
    assert "epoch 2/12" not in done.stderr
    assert first_difference(undisturbed, report_in(folder)) == ""
    assert not (folder / "failure.json").exists()
    assert len(report_in(folder).attempts) == 2
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if row["stage"] == "baseline"]
    assert [row["epoch"] for row in rows if "epoch" in row] == list(range(1, 13))


def test_a_launcher_that_handles_the_signal_has_the_last_word(monkeypatch):
    said = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: said.append(number))
    try:
        with interruption.listening(), interruption.held():
            signal.raise_signal(signal.SIGUSR2)
            assert interruption.asked()
            assert said == []
            interruption.stop_if_asked()
            assert said == [signal.SIGUSR2]
        assert signal.getsignal(signal.SIGUSR2)(0, None) is None
    finally:
        signal.signal(signal.SIGUSR2, before)


@pytest.fixture
def heeded():
    """The signals as a program in the foreground finds them, whoever starts these tests."""
    usual = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heeded")
def test_outside_a_training_a_run_stops_at_once():
    with (
        pytest.raises(interruption.Interrupted, match="interrupted by SIGHUP"),
        interruption.listening(),
    ):
        signal.raise_signal(signal.SIGHUP)
        pytest.fail("went on")


@pytest.mark.usefixtures("heeded")
def test_a_second_ctrl_c_does_not_wait():
    with (
        interruption.listening(),
        pytest.raises(interruption.Interrupted) as stopped,
        interruption.held(),
    ):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("went on")
    assert stopped.value.code == interruption.BY_HAND


def become(error):
    """Ends as a library does that makes an error of its own of whatever arises in it."""
    try:
        signal.raise_signal(signal.SIGTERM)
    except BaseException:  # noqa: BLE001 - as torch's loaders have it
        raise error from None


def test_what_libraries_make_of_it_is_told_as_what_it_was():
    with pytest.raises(interruption.Interrupted) as stopped, interruption.listening():
        become(OSError("the file is damaged"))
    assert stopped.value.code == interruption.START_AGAIN


def test_an_error_before_the_answer_is_told_as_such():
    with pytest.raises(OSError, match="disk full"), interruption.listening(), interruption.held():
        signal.raise_signal(signal.SIGTERM)
        raise OSError("disk full")


def test_what_was_done_in_the_place_of_stopping_is_not_kept(tmp_path):
    def compute(_):
        try:
            become(RuntimeError("no code can be followed here"))
        except RuntimeError:
            return {"fallback": 1}

    with pytest.raises(interruption.Interrupted), interruption.listening():
        Ledger(tmp_path, every_seconds=0).do("prune", compute)
    assert not list(tmp_path.iterdir())


def test_who_is_told_twice_saves_in_peace():
    saved = []
    with pytest.raises(interruption.Interrupted), interruption.listening():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)  # as timeout(1) does
            saved.append(True)
    assert saved


#: a run in which torch reports a mistake of the network where a signal arrived
MISTAKEN = """
import signal
import subprocess
import sys
from prunebench import cli
from prunebench.errors import ConfigError
from prunebench.run import runner

def execute(*_):
    try:
        signal.raise_signal(signal.SIGTERM)
    except BaseException as error:
        raise ConfigError("the network cannot be followed") from error

runner.execute = execute
cli.main()
"""


def test_a_run_that_stops_so_is_recorded_as_interrupted(python, tmp_path):
    done = python.run("-c", MISTAKEN, *LONG, cwd=tmp_path)
    assert done.returncode == interruption.START_AGAIN, done.stderr
    assert done.stderr.splitlines()[-1].startswith("prunebench: interrupted by SIGTERM; ")
    failure = json.loads((tmp_path / "outputs" / "a" / "failure.json").read_text())
    assert (failure["kind"], failure["traceback"]) == ("interrupted", "")


#: a run that is told to stop while its report is written
DONE = """
import signal, sys
from pathlib import Path
from prunebench import cli, records
from prunebench.run import runner

text, write = Path(sys.argv.pop(1)).read_text(), records.finish

def finish(*which):
    signal.raise_signal(signal.SIGTERM)
    write(*which)

records.finish = finish
runner.execute = lambda *_: records.from_json(records.Report, text, "")
cli.main()
"""


def test_a_run_that_is_done_ends_as_such(python, tmp_path, undisturbed):
    (tmp_path / "made.json").write_text(to_json(undisturbed))
    done = python.run("-c", DONE, "made.json", *LONG, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert report_in(tmp_path / "outputs" / "a") == undisturbed


def test_a_sweep_stops_behind_the_run_that_is_done(python, tmp_path, undisturbed):
    (tmp_path / "made.json").write_text(to_json(undisturbed))
    words = ["-m", *LONG, "run.seed=0,1", "hydra.sweep.dir=sweep"]
    done = python.run("-c", DONE, "made.json", *words, cwd=tmp_path)
    assert done.returncode == interruption.START_AGAIN, done.stderr
    assert done.stderr.splitlines()[-1].startswith("prunebench: interrupted by SIGTERM")
    assert len([*(tmp_path / "sweep").glob("0-*/report.json")]) == 1
    assert [*(tmp_path / "sweep").glob("1-*")] == []


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruption.listening():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


RELAYED = """
import os, signal, subprocess, sys
from prunebench.cli.relay import answered, relay
from prunebench.interruption import Interrupted

workers = [subprocess.Popen(["sleep", "60"]) for _ in range(int(sys.argv[1]))]

def work():
    os.kill(os.getpid(), signal.SIGTERM)
    print([worker.wait(10) for worker in workers], flush=True)
    raise RuntimeError("a worker is gone")

relay()
try:
    answered(work)
except Interrupted as error:
    print(error, error.code)
"""


@pytest.mark.parametrize(("workers", "said"), [(0, ""), (2, "[-15, -15]\n")])
def test_workers_of_a_launcher_are_told(workers, said):
    done = subprocess.run(
        [sys.executable, "-c", RELAYED, str(workers)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == f"{said}interrupted by SIGTERM 75\n", done.stderr
