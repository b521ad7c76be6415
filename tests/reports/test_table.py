"""``prunebench-table``: one golden per format, escapes, and one line for every mistake."""

import csv
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from prunebench.options import conf_dir
from prunebench.records import Failure, Report, finish
from prunebench.reports import table
from prunebench.reports.table import main, print_table, render

GOLDEN = Path(__file__).parent / "golden"


def trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


@pytest.mark.parametrize(
    ("form", "file"),
    [
        ("markdown", "sweep.md"),
        ("latex", "sweep.tex"),
        ("csv", "sweep.csv"),
        ("rich", "sweep.txt"),
    ],
)
def test_format(sweep: Path, monkeypatch: pytest.MonkeyPatch, form: str, file: str) -> None:
    """The figures of the golden files were worked out by hand; see test_rows for how."""
    monkeypatch.chdir(sweep)
    monkeypatch.setattr(table, "FILE_WIDTH", 100)
    text = render(["."], form, to_file=True)
    assert trimmed(text) == (GOLDEN / file).read_text(encoding="utf-8")


def test_one_run_reads_from_before_to_after(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_table([sweep / "seed1"])
    golden = (GOLDEN / "one_run.txt").read_text(encoding="utf-8")
    assert trimmed(capsys.readouterr().out) == golden


def test_csv_holds_plain_numbers(sweep: Path) -> None:
    first, second = csv.DictReader(io.StringIO(render([sweep], "csv")))
    assert {key: first[key] for key in ("model", "dataset", "method", "details")} == {
        "model": "lenet5",
        "dataset": "digits",
        "method": "foad, own, recipe quick",
        "details": "criterion.t=1",
    }
    expected = {
        "seeds": 3,
        "failed": 0,
        "baseline_top1_percent_mean": 91.0,  # 90 91 92
        "baseline_top1_percent_std": 1.0,
        "finetuned_last_top1_percent_mean": 88.666667,  # 88 88 90
        "finetuned_last_top1_percent_std": 1.154701,
        "finetuned_best_val_top1_percent_mean": 89.166667,
        "drop_points_mean": 2.333333,  # 2 3 2
        "drop_points_std": 0.57735,
        "params_before_mean": 2000,
        "params_after_mean": 500,
        "params_reduction_percent_mean": 75,
        "macs_reduction_percent_mean": 60,
        "macs_reduction_percent_std": 0,
        "size_bytes_after_mean": 2000,
        "latency_ms_batch1_before_mean": 4,
        "latency_ms_batch64_after_mean": 40,
    }
    assert {key: float(first[key]) for key in expected} == expected
    assert first["published_top1_percent_mean"] == first["repaired_top1_percent_mean"] == ""
    assert (second["seeds"], second["failed"], second["drop_points_mean"]) == ("1", "1", "5.0")
    assert second["drop_points_std"] == second["params_after_std"] == ""


@pytest.fixture
def awkward(tmp_path: Path, make_report: Callable[..., Report]) -> Path:
    """A run whose names hold what the formats give a meaning to."""
    choices = {"model": "a|b_c", "dataset": "50%&[x]", "criterion": "[red]$k^2~{}#\\*"}
    finish(tmp_path, make_report(choices=choices, note="one | two"))
    return tmp_path


def test_markdown_escapes(awkward: Path) -> None:
    text = render([awkward], "markdown")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert r"| a\|b\_c | 50%&[x] | [red]$k^2~{}#\\\*, own, recipe quick |" in text
    assert {line.replace(r"\|", "").count("|") for line in lines} == {lines[0].count("|")}
    assert r"Data, 50%&[x]: one \| two" in text


def test_latex_escapes(awkward: Path) -> None:
    text = render([awkward], "latex")
    assert (
        r"a|b\_c & 50\%\&{[}x] & {[}red]\$k\textasciicircum{}2\textasciitilde{}\{\}"
        r"\#\textbackslash{}*, own" in text
    )


def test_csv_escapes(awkward: Path) -> None:
    (row,) = csv.DictReader(io.StringIO(render([awkward], "csv")))
    assert row["method"] == "[red]$k^2~{}#\\*, own, recipe quick"


@pytest.mark.parametrize("terminal", [False, True])
def test_rich_shows_brackets(
    awkward: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    assert "a|b_c on 50%&[x]: [red]$k^2~{}#\\*, own" in render([awkward], "rich")


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_no_figure_is_cut_off(sweep: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr(table, "FILE_WIDTH", width)
    text = render([sweep], "rich", to_file=True)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for figure in ("91.00 ± 1.00", "88.67 ± 1.15", "2.33 ± 0.58", "2 k → 500 (-75.0 ± 0.0 %)"):
        assert figure in text
    for figure in ("2 k → 200 (-90.0 %)", "100 → 40 (2.50x)"):
        assert figure in text


def published_run(folder: Path, make_report: Callable[..., Report], **changes: object) -> Path:
    choices = {"model": "resnet56", "dataset": "cifar10"}
    finish(folder / "run", make_report(choices=choices, **changes))
    return folder


def test_published_rows_need_the_same_network(
    tmp_path: Path, make_report: Callable[..., Report]
) -> None:
    """A baseline of 2,000 parameters is no ResNet-56, whatever its name."""
    folder = published_run(tmp_path, make_report)
    assert "HRank" not in render([folder], "markdown")


def test_published_rows_stand_below_with_their_source(
    tmp_path: Path, make_report: Callable[..., Report]
) -> None:
    report = make_report(choices={"model": "vgg16", "dataset": "cifar10"})
    finish(tmp_path, report)
    text = render([tmp_path], "markdown")
    ours, *published = (line for line in text.splitlines() if line.startswith("| vgg16"))
    (foad,) = (line for line in published if "FOAD (paper)" in line)
    assert ours.startswith("| vgg16 | cifar10 | foad, own, recipe quick | 1 |")
    assert foad == (
        "| vgg16 | cifar10 | FOAD (paper) [2] |  |  |  |  | 93.81 |  | -87.1 % | -63.7 % |  |  |"
    )
    assert "\n- [2] Shi et al., " in text
    assert "FLOPs as printed" in text
    assert "FOAD (paper)" not in render([tmp_path], "markdown", published=False)


def test_failed_runs_only(
    tmp_path: Path,
    make_report: Callable[..., Report],
    make_failure: Callable[..., Failure],
    capsys: pytest.CaptureFixture[str],
) -> None:
    finish(tmp_path, make_failure(make_report()))
    for form in table.FORMATS:
        assert main([str(tmp_path), "--format", form]) == 0
        assert capsys.readouterr().out
    text = render([tmp_path], "latex")
    assert "lenet5 & digits & foad, own, recipe quick & 0 & 1 " in text
    text = render([tmp_path], "rich", to_file=True).replace("\n", " ")
    assert f"failed: {tmp_path} (finetune: TrainingError: loss is nan)" in text


@pytest.mark.parametrize(
    ("name", "start"),
    [("t.md", "| model"), ("t.tex", "\\begin{table}"), ("t.csv", "model,dataset"), ("t", "| mod")],
)
def test_out_file_takes_its_format_from_the_suffix(
    sweep: Path, capsys: pytest.CaptureFixture[str], name: str, start: str
) -> None:
    out = sweep / name
    assert main([str(sweep), "--out", str(out)]) == 0
    assert out.read_text().startswith(start)
    assert capsys.readouterr().out == ""


def test_mistakes_are_one_line_and_exit_2(
    sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (sweep / "t2" / "report.json").write_text("{")
    empty = sweep / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    for argv, message in (
        ([str(sweep)], "t2/report.json is not valid JSON"),
        ([], "outputs is not there"),
        (["."], "no report.json or failure.json in ."),
        ([str(sweep / "seed0"), "--out", "no/such/t.md"], "--out no/such/t.md cannot be written"),
    ):
        assert main(argv) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert captured.err.startswith("prunebench-table: ")
        assert message in captured.err
    with pytest.raises(SystemExit) as stopped:
        main(["--format", "html"])
    assert stopped.value.code == 2
    assert "'rich', 'markdown', 'latex', 'csv'" in capsys.readouterr().err


def command(*argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "prunebench.reports.table", *argv],
        env=os.environ | {"PYTHONPATH": str(conf_dir().parent)} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_command_starts_fast_and_needs_no_terminal(sweep: Path) -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = command(str(sweep))
        seconds.append(time.perf_counter() - start)
        assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    # 0.2 s on an idle machine; importing torch alone takes over 2 s
    assert min(seconds) < 1.5


def test_plain_terminals_get_question_marks(sweep: Path) -> None:
    done = command(str(sweep), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "91.00 ? 1.00" in done.stdout


def test_a_busy_machine_is_called_one(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = sweep / "seed1" / "report.json"
    path.write_text(path.read_text().replace('"iqr_ms": 0.1', '"iqr_ms": 4.0'))
    print_table([sweep / "seed1"])
    assert "the machine was busy, so do" in " ".join(capsys.readouterr().out.split())
