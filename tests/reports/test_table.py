"""``prunebench table``: one golden file per format, escapes, and one line per mistake."""

import csv
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from filelock import FileLock

from prunebench.errors import DataError
from prunebench.options.files import conf_dir
from prunebench.records import Failure, Report, finish, write_json
from prunebench.reports import terminal
from prunebench.reports.table import FORMATS, main, print_table, render
from prunebench.reports.terminal import FILE_WIDTH, labels

GOLDEN = Path(__file__).parent / "golden"
RICH = tuple(int(part) for part in version("rich").split(".")[:2])
NEWER_RICH = pytest.mark.skipif(RICH < (14, 3), reason="older releases share out widths otherwise")


def trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide as in a file, whatever terminal the tests run in."""
    monkeypatch.setenv("COLUMNS", str(FILE_WIDTH))


@pytest.mark.parametrize(
    ("form", "file"),
    [
        ("markdown", "sweep.md"),
        ("latex", "sweep.tex"),
        ("csv", "sweep.csv"),
        pytest.param("rich", "sweep.txt", marks=NEWER_RICH),
    ],
)
def test_format(sweep: Path, monkeypatch: pytest.MonkeyPatch, form: str, file: str) -> None:
    """The figures of the golden files were worked out by hand; see test_rows for how."""
    monkeypatch.chdir(sweep)
    monkeypatch.setattr(terminal, "FILE_WIDTH", 100)
    text = render(["."], form, to_file=True)
    assert trimmed(text) == (GOLDEN / file).read_text(encoding="utf-8")


@NEWER_RICH
def test_one_run_reads_from_before_to_after(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_table([sweep / "seed1"])
    golden = (GOLDEN / "one_run.txt").read_text(encoding="utf-8")
    assert trimmed(capsys.readouterr().out) == golden
    assert main([str(sweep / "seed1")]) == 0  # what is typed shows the same
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
        r"a\textbar{}b\_c & 50\%\&{[}x] & {[}red]\$k\textasciicircum{}2\textasciitilde{}\{\}"
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


@pytest.mark.parametrize("width", [60, 80, 140, 220])
def test_the_table_fits_and_names_what_it_leaves_out(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = render([sweep], "rich")
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    figures = {
        "fine-tuned %": "88.67 ± 1.15",
        "drop": "2.33 ± 0.58",
        "MACs": "-60.0 ± 0.0 %",
        "baseline %": "91.00 ± 1.00",
        "params": "-75.0 ± 0.0 %",
        "pruned %": "20.00 ± 0.00",
        "best val %": "89.17 ± 1.15",
        "MACs, counts": "10 k → 4 k",
        "params, counts": "2 k → 500",
        "latency ms, batch 1": "4 → 2 (2.00x)",
        "latency ms, batch 64": "100 → 40 (2.50x)",
    }
    table, _, below = text.partition("Left out for lack of space ")
    below = " ".join(below.split())
    named = below.partition(": ")[2].partition(" (--format")[0]
    gone = named.split("; ") if named else []
    assert gone == list(figures)[len(figures) - len(gone) :]
    assert all((figure in table) == (title not in gone) for title, figure in figures.items())
    assert len(gone) == {60: 10, 80: 8, 140: 4, 220: 0}[width]


def test_names_that_differ_in_a_long_path_are_cut_in_the_middle() -> None:
    paths = [f"[dataset.path=/some/where/far/away/{name}.npz]" for name in ("cats", "dogs")]
    assert labels([f"l1 {path}" for path in paths], 24) == [
        "l1 [dataset.pa…ay/cats.npz]",
        "l1 [dataset.pa…ay/dogs.npz]",
    ]
    alike = [f"[dataset.path=/some/{name}/far/away/from/here.npz]" for name in ("way", "road")]
    assert labels(alike, 24) == alike  # cut, they would look the same
    assert labels(["short", "words only"], 24) == ["short", "words only"]


def published_run(folder: Path, make_report: Callable[..., Report], **changes: object) -> Path:
    choices = {"model": "resnet56", "dataset": "cifar10"}
    finish(folder / "run", make_report(choices=choices, **changes))
    return folder


def test_published_rows_need_the_same_network(
    tmp_path: Path, make_report: Callable[..., Report]
) -> None:
    """A baseline of 2,000 parameters is no ResNet-56, whatever its name."""
    folder = published_run(tmp_path, make_report)
    text = render([folder], "markdown")
    assert "HRank" not in text
    assert "125 published rows of resnet56 on cifar10 not shown" in text


def test_published_rows_stand_below_with_their_source(
    tmp_path: Path, make_report: Callable[..., Report]
) -> None:
    report = make_report(choices={"model": "vgg16", "dataset": "cifar10"})
    dense, *others = report.measurements
    dense = replace(dense, params=14_724_042, macs=313_201_664)
    finish(tmp_path, replace(report, measurements=[dense, *others]))
    text = render([tmp_path], "markdown")
    ours, *published = (line for line in text.splitlines() if line.startswith("| vgg16"))
    (foad,) = (line for line in published if "| FOAD" in line)
    assert ours.startswith("| vgg16 | cifar10 | foad, own, recipe quick | 1 |")
    row, mark = foad.removeprefix("| vgg16 | cifar10 | FOAD ").split("]", 1)
    assert mark == " |  |  |  |  | 93.81 |  | -87.1 % | -63.7 % |  |  |"
    assert f"\n- {row}] Shi et al., " in text
    assert "published rows of vgg16 on cifar10 not shown: prunebench published model=vgg16" in text
    alone = render([tmp_path], "markdown", published=False)
    assert "| FOAD" not in alone
    assert "not shown" not in alone


def test_failed_runs_only(
    tmp_path: Path,
    make_report: Callable[..., Report],
    make_failure: Callable[..., Failure],
    capsys: pytest.CaptureFixture[str],
) -> None:
    finish(tmp_path, make_failure(make_report()))
    for form in FORMATS:
        assert main([str(tmp_path), "--format", form]) == 0
        assert capsys.readouterr().out
    text = render([tmp_path], "latex")
    assert "lenet5 & digits & foad, own, recipe quick & 0 & 1 " in text
    text = render([tmp_path], "rich", to_file=True).replace("\n", " ")
    assert f"failed: {tmp_path} (finetune: TrainingError: loss is nan)" in text


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("t.md", "| model"),
        ("t.tex", "\\begin{table}"),
        ("t.csv", "model,dataset"),
        ("t.txt", "lenet5 on digits"),
        ("t", "| mod"),
    ],
)
def test_out_file_takes_its_format_from_the_suffix(
    sweep: Path, capsys: pytest.CaptureFixture[str], name: str, start: str
) -> None:
    out = sweep / name
    assert main([str(sweep), "--out", str(out)]) == 0
    assert out.read_text().startswith(start)
    assert capsys.readouterr().out == f"{out}\n"


def test_mistakes_are_one_line_and_exit_2(
    sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (sweep / "t2" / "report.json").write_text("{")
    empty = sweep / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    for argv, message in (
        ([str(sweep / "t2")], "t2/report.json is not valid JSON"),
        ([], "outputs is not there"),
        (["."], "no report.json or failure.json in ."),
        ([str(sweep / "seed0"), "--out", "no/such/t.md"], "--out no/such/t.md cannot be written"),
        (
            [str(sweep), "--out", "t.html"],
            "--out t.html: no format has this suffix; valid: .md .tex",
        ),
        (
            [str(sweep), "--per-run", "--out", "t.md"],
            "--per-run is for --format csv or json, not markdown",
        ),
    ):
        assert main(argv) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert captured.err.startswith("prunebench table: ")
        assert message in captured.err
    with pytest.raises(SystemExit) as stopped:
        main(["--format", "html"])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "'rich', 'markdown', 'latex', 'csv', 'json'" in said
    assert said.count("\n") == 1
    assert not list(empty.iterdir())


def command(*argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "prunebench", "table", *argv],
        env=os.environ | {"PYTHONPATH": str(conf_dir().parent)} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_command_starts_fast_and_needs_no_terminal(sweep: Path) -> None:
    seconds = []
    for _ in range(3):
        before = os.times()
        done = command(str(sweep))
        after = os.times()  # of the processor: others may keep it busy meanwhile
        seconds.append(after.children_user - before.children_user)
        assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    # 0.2 s; importing torch alone takes over 2 s
    assert min(seconds) < 1.5


def test_plain_terminals_get_question_marks(sweep: Path) -> None:
    done = command(str(sweep), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "91.00 ? 1.00" in done.stdout


def test_a_busy_machine_is_called_one(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = sweep / "seed1" / "report.json"
    path.write_text(path.read_text().replace('"iqr_ms": 0.1', '"iqr_ms": 4.0'))
    print_table([sweep / "seed1"])
    text = " ".join(capsys.readouterr().out.split())
    assert "Latency of lenet5 on digits is left out: the machine was busy (interquartile" in text
    assert "range up to 200% of the median on CPU X, 1 thread)" in text
    assert "latency ms" not in text


def test_one_restless_run_spoils_the_latencies_beside_it(
    sweep: Path, make_report: Callable[..., Report]
) -> None:
    path = sweep / "t2" / "report.json"
    path.write_text(path.read_text().replace('"iqr_ms": 0.1', '"iqr_ms": 1.0'))
    finish(sweep / "other", make_report(choices={"model": "vgg16"}))
    text = render([sweep], "markdown")
    ours, spoilt, *_ = (line for line in text.splitlines() if line.startswith("| lenet5"))
    assert ours.endswith("|  |  |")
    assert spoilt.endswith("|  |  |")
    assert "| 4 → 2 (2.00x) | 100 → 40 (2.50x) |" in text  # another network's
    (row, *_) = csv.DictReader(io.StringIO(render([sweep / "t2"], "csv")))
    assert float(row["latency_ms_batch1_after_mean"]) == 2.0
    assert float(row["latency_iqr_over_median_max"]) == 0.5


def test_damaged_reports_do_not_end_the_table(sweep: Path) -> None:
    path = sweep / "t2" / "report.json"
    path.write_text("{")
    for form in ("markdown", "latex", "rich"):
        text = " ".join(render([sweep], form).split())
        assert "88.67" in text
        assert "damaged: " in text
        assert "report.json is not valid JSON" in text


def test_failed_runs_can_be_left_out(sweep: Path) -> None:
    text = render([sweep], "markdown", failed=False)
    assert "failed |" not in text
    assert "failed: " not in text
    assert "- Not shown: 1 failed; --failed lists them." in text
    with pytest.raises(DataError, match="failed"):
        render([sweep / "t2_failed"], "markdown", failed=False)


def test_unfinished_runs_are_counted_and_placed(
    sweep: Path, make_report: Callable[..., Report]
) -> None:
    for name in ("killed", "going"):
        report = make_report(7)
        identity = {"digest": "", "config": report.config, "choices": report.choices}
        write_json(sweep / name / "run.json", identity)
        row = {"stage": "finetune", "epochs": 25, "epoch": 3}
        (sweep / name / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    with FileLock(sweep / "going" / ".lock"):
        text = render([sweep], "markdown")
    assert "| foad, own, recipe quick [criterion.t=1] | 3 |  | 2 |" in text
    where = re.escape(str(sweep)).replace("_", r"\\_")
    place = r"\(finetune, epoch 3/25, last row \d{4}-\d\d-\d\d \d\d:\d\d\)"
    assert re.search(rf"- unfinished: {where}/killed {place}", text)
    assert re.search(rf"- running: {where}/going {place}", text)
    (first, *_) = csv.DictReader(io.StringIO(render([sweep], "csv")))
    assert first["unfinished"] == "2"


def test_csv_per_run(sweep: Path, make_report: Callable[..., Report]) -> None:
    finish(sweep / "again", make_report(0, last=870, finished_at="2026-01-02T00:00:00+00:00"))
    found = list(csv.DictReader(io.StringIO(render([sweep], "csv", per_run=True))))
    read = [(r["seed"], r["counts"], r["finetuned_last_top1_percent"], r["details"]) for r in found]
    assert read == [
        ("0", "0", "88.0", "criterion.t=1"),
        ("0", "1", "87.0", "criterion.t=1"),
        ("1", "1", "88.0", "criterion.t=1"),
        ("2", "1", "90.0", "criterion.t=1"),
        ("0", "1", "85.0", "criterion.t=2"),
    ]
    assert len({row["setting"] for row in found}) == 2
    for row in found:
        content = Path(row["path"]).read_bytes()
        assert row["sha256"] == hashlib.sha256(content).hexdigest()
    assert main([str(sweep), "--per-run", "--out", str(sweep / "t.csv")]) == 0
    assert (sweep / "t.csv").read_text().startswith("model,dataset,method,details,setting,seed,")
