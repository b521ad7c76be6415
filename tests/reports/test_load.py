"""Runs are found, read once, and named when damaged."""

from collections.abc import Callable
from pathlib import Path

import pytest

from prunebench.errors import DataError
from prunebench.records import write_json
from prunebench.reports.load import load_runs


def test_folders_are_searched_and_files_read_once(sweep: Path) -> None:
    one = sweep / "seed0" / "report.json"
    reports, failures = load_runs([sweep, one, sweep / "seed0"])
    assert sorted(path.parent.name for path, _ in reports) == ["seed0", "seed1", "seed2", "t2"]
    assert [path.parent.name for path, _ in failures] == ["t2_failed"]
    assert load_runs([one])[0][0][1].seed == 0


def test_a_report_may_have_any_name(tmp_path: Path, make_report: Callable[..., object]) -> None:
    write_json(tmp_path / "vgg16.json", make_report(7))
    assert load_runs([tmp_path / "vgg16.json"])[0][0][1].seed == 7


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
    reports, failures = load_runs([tmp_path])
    assert (len(reports), len(failures)) == (left, 1 - left)


def test_damaged_report_is_named(sweep: Path) -> None:
    path = sweep / "seed1" / "report.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(DataError, match=r"seed1/report\.json is not valid JSON"):
        load_runs([sweep])
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"seed1/report\.json cannot be read"):
        load_runs([sweep])


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no report\.json or failure\.json in .*; run prunebench"):
        load_runs([tmp_path])
    with pytest.raises(DataError, match="nowhere is not there; give report files or folders"):
        load_runs([tmp_path / "nowhere"])
