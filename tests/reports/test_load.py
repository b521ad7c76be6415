"""Runs are found, read once, and named if damaged."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from prunebench.errors import DataError
from prunebench.records import Failure, Report, write_json
from prunebench.reports.load import load_runs


def test_folders_are_searched_and_files_read_once(sweep: Path) -> None:
    one = sweep / "seed0" / "report.json"
    runs = load_runs([sweep, one, sweep / "seed0"])
    assert sorted(path.parent.name for path, _ in runs.reports) == ["seed0", "seed1", "seed2", "t2"]
    assert [path.parent.name for path, _ in runs.failures] == ["t2_failed"]
    assert runs.unfinished == runs.damaged == []
    assert load_runs([one]).reports[0][1].seed == 0


def test_a_report_may_have_any_name(tmp_path: Path, make_report: Callable[..., object]) -> None:
    write_json(tmp_path / "vgg16.json", make_report(7))
    assert load_runs([tmp_path / "vgg16.json"]).reports[0][1].seed == 7


@pytest.mark.parametrize(
    ("failed_at", "left"), [("2025-12-31T00:00:00+00:00", 1), ("2026-01-02T00:00:00+00:00", 0)]
)
def test_of_both_records_in_a_folder_the_later_counts(
    tmp_path: Path,
    make_report: Callable[..., object],
    make_failure: Callable[..., object],
    failed_at: str,
    left: int,
) -> None:
    import dataclasses

    write_json(tmp_path / "report.json", make_report())
    failed = dataclasses.replace(make_failure(make_report()), finished_at=failed_at)
    write_json(tmp_path / "failure.json", failed)
    runs = load_runs([tmp_path])
    assert (len(runs.reports), len(runs.failures)) == (left, 1 - left)


def test_damaged_reports_are_named_and_the_others_read(sweep: Path) -> None:
    first, second = (sweep / name / "report.json" for name in ("seed1", "t2"))
    first.write_text(first.read_text()[:100])
    second.write_bytes(b"\xff\xfe")
    runs = load_runs([sweep])
    assert len(runs.reports) == 2
    torn, no_text = runs.damaged
    assert "seed1/report.json is not valid JSON" in torn
    assert "t2/report.json cannot be read" in no_text
    with pytest.raises(DataError, match=r"seed1/report\.json is not valid JSON") as error:
        load_runs([first])
    assert "more are damaged" not in str(error.value)
    with pytest.raises(DataError, match=r"\(1 more are damaged\)"):
        load_runs([first, second])


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no report\.json or failure\.json in .*; run prunebench"):
        load_runs([tmp_path])
    with pytest.raises(DataError, match="nowhere is not there; give report files or folders"):
        load_runs([tmp_path / "nowhere"])


ROWS = [
    {"stage": "baseline", "epochs": 3, "epoch": 3},
    {"stage": "finetune", "epochs": 25, "epoch": 3},
]


@pytest.fixture
def killed(tmp_path: Path, make_report: Callable[..., Report]) -> Path:
    """The folder of a run that was killed in its fine-tuning."""
    report = make_report(5)
    identity = {"digest": "", "config": report.config, "choices": report.choices}
    write_json(tmp_path / "run.json", identity)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def test_a_killed_run_is_unfinished(killed: Path) -> None:
    ((path, run),) = load_runs([killed]).unfinished
    assert path == killed / "run.json"
    assert (run.stage, run.epoch, run.seed, run.running) == ("finetune", "3/25", 5, False)
    assert run.choices["model"] == "lenet5"
    assert abs(run.seen.timestamp() - time.time()) < 60
    with (killed / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "finetune", "epo')  # the kill tore it
    ((_, run),) = load_runs([killed]).unfinished
    assert run.epoch == "3/25"
    (killed / "metrics.jsonl").unlink()
    ((_, run),) = load_runs([killed]).unfinished
    assert (run.stage, run.epoch) == ("start", "")


def test_a_run_whose_folder_is_held_is_running(
    killed: Path, make_report: Callable[..., Report], make_failure: Callable[..., Failure]
) -> None:
    with FileLock(killed / ".lock"):
        ((_, run),) = load_runs([killed]).unfinished
        assert run.running
        write_json(killed / "failure.json", make_failure(make_report(5)))
        runs = load_runs([killed])
        assert (len(runs.unfinished), len(runs.failures)) == (1, 0)  # taken up again
    runs = load_runs([killed])
    assert (len(runs.unfinished), len(runs.failures)) == (0, 1)
    write_json(killed / "report.json", make_report(5, finished_at="2026-02-01T00:00:00+00:00"))
    runs = load_runs([killed])
    assert (len(runs.reports), len(runs.unfinished), len(runs.failures)) == (1, 0, 0)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.json", "{", "run.json cannot be read"),
        ("run.json", '{"config": {}}', "run.json does not say which run it belongs to"),
        ("run.json", "[]", "run.json does not say which run it belongs to"),
        ("metrics.jsonl", "?\n{}\n", "metrics.jsonl: line 1 is damaged"),
    ],
)
def test_what_is_damaged_of_a_killed_run_is_named(
    killed: Path, name: str, text: str, message: str
) -> None:
    (killed / name).write_text(text)
    with pytest.raises(DataError, match=message):
        load_runs([killed])
