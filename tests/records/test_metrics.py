"""A log of metrics has no duplicate rows, and is whole after a kill."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from prunebench.errors import DataError
from prunebench.options.files import conf_dir
from prunebench.records.metrics import MetricsLog, read_metrics


def test_log_keeps_rows_in_order(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "deep" / "metrics.jsonl")
    rows = [
        {"stage": "baseline", "epoch": 1, "train/loss": 2.0},
        {"stage": "baseline", "epoch": 2, "train/loss": 1.0},
        {"stage": "pruned", "test/top1": 10.0},
    ]
    for number, row in enumerate(rows, start=1):
        assert log.append(row)
        assert log.path.read_text().count("\n") == number
    assert read_metrics(log.path) == rows


@pytest.mark.parametrize("torn", [b'{"stage": "b", "epo', b"{", b"\x00\x00", b'{"epoch": 1}\n'])
def test_resumed_log_has_no_doubles_and_no_torn_line(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for epoch in (1, 2, 3):
        log.append({"stage": "finetune", "epoch": epoch, "train/loss": float(epoch)})
    with path.open("ab") as file:
        file.write(torn)
    assert len(read_metrics(path)) == 3

    resumed = MetricsLog(path)
    assert [row["epoch"] for row in resumed.rows] == [1, 2, 3]
    row = {"stage": "finetune"}
    assert not resumed.append(row | {"epoch": 3, "train/loss": 3.0})  # the very same
    assert not resumed.append(row | {"epoch": 2, "train/loss": 20.0})  # another value
    assert resumed.append(row | {"epoch": 4, "train/loss": 4.0})
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["epoch"], row["train/loss"]) for row in found] == [(1, 1), (2, 20), (3, 3), (4, 4)]


def test_a_row_whole_but_for_its_line_break_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"stage": "a", "epoch": 1}')
    MetricsLog(path).append({"stage": "a", "epoch": 2})
    assert [row["epoch"] for row in read_metrics(path)] == [1, 2]


def test_damage_inside_the_log_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"stage": "a"}\nrubbish\n{"stage": "b"}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl: line 2 is damaged"):
        MetricsLog(path)


def test_fresh_log_starts_empty(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    MetricsLog(path).append({"stage": "a"})
    MetricsLog(path, fresh=True).append({"stage": "b"})
    assert read_metrics(path) == [{"stage": "b"}]


def test_log_survives_sigkill(tmp_path: Path) -> None:
    """All rows whose append returned are on disk after a kill without warning."""
    program = (
        "import os, signal, sys\n"
        "from prunebench.records.metrics import MetricsLog\n"
        "log = MetricsLog(sys.argv[1])\n"
        "for epoch in range(50): log.append({'stage': 's', 'epoch': epoch})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "metrics.jsonl"
    ended = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        env=os.environ | {"PYTHONPATH": str(conf_dir().parent)},
        check=False,
    )
    assert ended.returncode == -9
    assert [row["epoch"] for row in read_metrics(path)] == list(range(50))
