"""A report that was edited is shown or named as damaged, but never causes a traceback."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prunebench.cli import do
from prunebench.errors import PrunebenchError
from prunebench.records import REPORT, finish
from tests.conftest import report

#: what may stand where something else should
VALUES: tuple[Any, ...] = ([], {}, None, "x", 3)
VIEWS = (["table"], ["table", "--compare"], ["table", "--columns", "method,macs"], ["page"])


def altered(good: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The report with each of its parts, and of its configuration's, left out or replaced."""
    for key in good:
        yield {name: value for name, value in good.items() if name != key}
        yield from ({**good, key: value} for value in VALUES)
    for key in good["config"]:
        yield from ({**good, "config": {**good["config"], key: value}} for value in VALUES)


def test_no_altered_report_ends_in_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(tmp_path, report())
    path = tmp_path / REPORT
    shown = []
    for number, values in enumerate(altered(json.loads(path.read_text()))):
        path.write_text(json.dumps(values))
        verb, *more = VIEWS[number % len(VIEWS)]
        out = ["-o", str(tmp_path / "page.html")] if verb == "page" else []
        try:
            shown.append(do(verb, [str(path), *more, *out]))
        except PrunebenchError as error:
            assert "\n" not in str(error)
            shown.append(2)
    assert len(shown) > 100
    assert {0, 2} == {*shown}
    assert "Traceback" not in capsys.readouterr().err


def test_a_report_without_measurements_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(tmp_path, report())
    path = tmp_path / REPORT
    path.write_text(json.dumps({**json.loads(path.read_text()), "measurements": []}))
    assert do("table", [str(path)]) == 0
    assert "lenet5" in capsys.readouterr().out
