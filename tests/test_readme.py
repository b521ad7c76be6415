"""The README says what is so: its commands compose, its results are the committed reports'."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()
COMMANDS = [
    line.split("#")[0].strip() for line in TEXT.splitlines() if line.startswith("prunebench ")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_compose(prunebench, tmp_path, command):
    words = shlex.split(command)[1:]
    if "--help" in words:
        assert prunebench(*words).returncode == 0
        return
    (tmp_path / "my" / "criterion").mkdir(parents=True)
    (tmp_path / "my" / "criterion" / "mine.yaml").write_text("_target_: mine.Mine\n")
    words = [word for word in words if word not in ("-m", "--cfg", "job")]
    # a sweep's lists are composed value by value
    words = [re.sub(r"^([\w.]+=[^,\[{]*),.*$", r"\1", word) for word in words]
    done = prunebench(*words, "--cfg", "job")
    assert done.returncode == 0, done.stderr


def test_there_are_commands():
    assert len(COMMANDS) >= 9
    assert TEXT.index("make demo") < TEXT.index("make test") < TEXT.index("prunebench model=vgg16")


def test_results_are_the_committed_reports():
    check = [sys.executable, str(ROOT / "scripts" / "reproduce" / "readme.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"python scripts/reproduce/readme.py is due: {done.stdout}"
    assert TEXT.count("| resnet20 | cifar10 |") >= 11


def test_every_committed_report_is_in_a_table():
    reports = (ROOT / "outputs" / "reference").rglob("report.json")
    folders = {path.relative_to(ROOT / "outputs" / "reference").parts[0] for path in reports}
    assert folders
    for name in folders:
        assert f"outputs/reference/{name}/table.md" in TEXT or name == "criteria_resnet20"


def test_the_table_of_combinations_is_the_programs():
    check = [sys.executable, str(ROOT / "scripts" / "reproduce" / "compatibility.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, "not up to date: python scripts/reproduce/compatibility.py"
    rows = [line for line in TEXT.splitlines() if line.startswith(("| `l2` |", "| `foad` |"))]
    assert len(rows) == 2
    assert rows[0].count("x") < rows[1].count("x") == 8


def test_it_is_short():
    assert TEXT.count("\n") < 200
