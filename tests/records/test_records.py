"""Records are read strictly, and are whole or absent on disk."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from prunebench.errors import DataError
from prunebench.options.files import conf_dir
from prunebench.records import (
    Failure,
    Latency,
    LayerRow,
    Measurement,
    Report,
    Score,
    StepRecord,
    finish,
    from_json,
    jsonfile,
    to_json,
    write_json,
)
from prunebench.records.jsonfile import digest


def a_report() -> Report:
    score = Score(correct=9, correct_top5=None, seen=12, loss=0.25)
    latency = Latency(batch=1, device="CPU", threads=2, median_ms=1.5, iqr_ms=0.1)
    return Report(
        config={"run": {"seed": 3}, "model": {"widths": [1, None, True, "x"]}},
        choices={"model": "vgg16"},
        seed=3,
        digest="abc",
        environment={"torch": "2"},
        seconds={"baseline": 1.5},
        plan={"conv1": [0, 2]},
        layers=[
            LayerRow(
                name="conv1",
                channels_before=3,
                channels_after=2,
                params_before=9,
                params_after=6,
                macs_before=90,
                macs_after=60,
            )
        ],
        steps=[
            StepRecord(
                name="all",
                groups=["conv1"],
                share=1.0,
                kept={"conv1": 2},
                criterion_seconds=0.5,
                seconds=1.0,
                surgery_error=1e-7,
                unprunable={"fc": "output"},
                counts={"conv1": {"dead": 1}},
            )
        ],
        measurements=[
            Measurement(
                stage="baseline",
                params=10,
                macs=100,
                size_bytes=40,
                test=score,
                val=None,
                latency=[latency],
            )
        ],
        convention="conv + linear",
        note="",
        finished_at="2026-01-01T00:00:00+00:00",
    )


def a_failure() -> Failure:
    return Failure(
        config={},
        choices={},
        seed=0,
        digest="",
        environment={},
        seconds={},
        stage="finetune",
        kind="TrainingError",
        message="loss",
        traceback="",
        finished_at="",
    )


def test_rates_follow_from_counts() -> None:
    assert Score(correct=9, correct_top5=11, seen=12, loss=None).accuracy == 75.0
    assert Score(correct=9, correct_top5=3, seen=12, loss=None).top5 == 25.0
    assert Score(correct=9, correct_top5=None, seen=12, loss=None).top5 is None


def test_report_comes_back_equal() -> None:
    report = a_report()
    assert from_json(Report, to_json(report), "x") == report
    assert report.at("baseline") is report.measurements[0]
    assert report.at("pruned") is None


def test_numbers_that_are_not_finite_become_null() -> None:
    score = Score(correct=1, correct_top5=None, seen=2, loss=float("nan"))
    text = to_json(score)
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name))["loss"] is None
    assert from_json(Score, text, "x").loss is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 99}, "r.json has schema version 99; this prunebench reads version 1"),
        ({"schema": None}, "r.json has schema version None; this prunebench reads version 1"),
        ({"seed": "3"}, "r.json: seed should be int, got '3'"),
        ({"seed": True}, "r.json: seed should be int, got True"),
        ({"seconds": {"baseline": "1"}}, "r.json: seconds.baseline should be float, got '1'"),
        ({"layers": {}}, "r.json: layers should be list, got {}"),
        ({"layers": [3]}, "r.json: layers[0] should be an object, got 3"),
        ({"colour": 1}, "r.json: colour is not a known field"),
    ],
)
def test_wrong_fields_are_named(change: dict[str, object], message: str) -> None:
    text = json.dumps(json.loads(to_json(a_report())) | change)
    with pytest.raises(DataError) as caught:
        from_json(Report, text, "r.json")
    assert str(caught.value) == message


LATER = (
    *("schema", "origin", "contents", "damaged", "attempts", "baseline", "unscored"),
    *("sensitivity", "untracked", "latency_target"),
)


@pytest.mark.parametrize(
    "name", [f.name for f in dataclasses.fields(Report) if f.name not in LATER]
)
def test_every_missing_field_is_named(name: str) -> None:
    values = json.loads(to_json(a_report()))
    del values[name]
    with pytest.raises(DataError, match=f"^r.json: {name} is missing$"):
        from_json(Report, json.dumps(values), "r.json")


def test_reports_written_before_a_field_was_there_are_read() -> None:
    values = json.loads(to_json(a_report()))
    del values["origin"]
    assert from_json(Report, json.dumps(values), "r.json") == a_report()


def test_missing_inner_field_is_named() -> None:
    values = json.loads(to_json(a_report()))
    del values["measurements"][0]["test"]["seen"]
    with pytest.raises(DataError, match=r"measurements\[0\]\.test\.seen is missing"):
        from_json(Report, json.dumps(values), "r.json")


@pytest.mark.parametrize(
    ("where", "change", "said"),
    [
        ("test", {"seen": 0, "correct": 0}, "seen must be positive, got 0"),
        ("test", {"correct": 10**6}, r"correct must lie in \[0, seen=\d+\], got 1000000"),
        ("test", {"correct": -1}, r"correct must lie in \[0, seen=\d+\], got -1"),
        ("", {"macs": 10**400}, "macs must be a count, got 10000000000000000000"),
        ("", {"params": -5}, "params must be a count, got -5"),
        ("latency[0]", {"median_ms": 0}, "median_ms must be positive, got 0.0"),
        ("latency[0]", {"median_ms": -1}, "median_ms must be positive, got -1.0"),
    ],
)
def test_numbers_that_nothing_can_have_counted_are_refused(where, change, said) -> None:
    values = json.loads(to_json(a_report()))
    one = values["measurements"][0]
    {"test": one["test"], "latency[0]": one["latency"][0], "": one}[where].update(change)
    place = re.escape(f"measurements[0]{'.' + where if where else ''}: ")
    with pytest.raises(DataError, match=f"^r.json: {place}{said}$"):
        from_json(Report, json.dumps(values), "r.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", to_json(a_report())[:-5]])
def test_torn_text_is_refused_with_the_file_name(text: str) -> None:
    with pytest.raises(DataError, match=r"^r\.json is not "):
        from_json(Report, text, "r.json")


def test_digest_ignores_order_and_sees_values() -> None:
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert len(digest({})) == 64


def test_exactly_one_outcome_stays(tmp_path: Path) -> None:
    assert finish(tmp_path, a_failure()) == tmp_path / "failure.json"
    assert [p.name for p in tmp_path.iterdir()] == ["failure.json"]
    assert finish(tmp_path, a_report()) == tmp_path / "report.json"
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]
    finish(tmp_path, a_failure())
    assert [p.name for p in tmp_path.iterdir()] == ["failure.json"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "report.json"
    write_json(path, a_report())
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(jsonfile.os, broken, fail)
    with pytest.raises(OSError, match="disk full"):
        write_json(path, a_failure())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_content_is_on_disk_before_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real_sync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda h: (order.append("fsync"), real_sync(h)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("replace"), real_replace(a, b)))
    write_json(tmp_path / "x.json", {})
    assert order == ["fsync", "replace", "fsync"]


def test_records_and_tracking_need_no_torch() -> None:
    program = (
        "import sys, prunebench.records, prunebench.records.metrics\n"
        "import prunebench.records.environment, prunebench.tracking.wandb\n"
        "import prunebench.reports.table\n"
        "sys.exit(bool({'torch', 'wandb', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    variables = os.environ | {"PYTHONPATH": str(conf_dir().parent)}
    assert (
        subprocess.run([sys.executable, "-c", program], env=variables, check=False).returncode == 0
    )


def test_what_moves_a_terminals_cursor_is_not_read() -> None:
    report = dataclasses.replace(a_report(), note="a\x1b[31m\x9bb\nc \\u001b é")
    assert from_json(Report, to_json(report), "r.json").note == "a?[31m?b\nc \\u001b é"
    raw = to_json(report).replace("\\u009b", "\x9b")
    assert from_json(Report, raw, "r.json").note == "a?[31m?b\nc \\u001b é"
    plain = to_json(dataclasses.replace(report, note="here"))
    for alone in ("\\u001b", "\x7f", "\x9b"):
        assert from_json(Report, plain.replace("here", alone), "r.json").note == "?"


def test_json_nested_too_deep_is_one_line() -> None:
    with pytest.raises(DataError, match="r.json is not valid JSON"):
        from_json(Report, "[" * 200_000, "r.json")
