"""The columns, rows and order that a user asks for."""

import csv
import io
import json
import shutil
import subprocess

import pytest

from prunebench.errors import DataError
from prunebench.records import finish
from prunebench.reports.asked import Asked
from prunebench.reports.table import main, render

SHOWN = ("criterion", "finetuned", "drop", "macs")


@pytest.fixture
def mixed(sweep, make_report):
    """Two settings of FOAD, one of which has a failure, and two other criteria on two networks."""
    for name, last, choices in (
        ("l1", 890, {"criterion": "l1"}),
        ("fpgm", 870, {"criterion": "fpgm", "model": "vgg16"}),
    ):
        finish(sweep / name, make_report(last=last, choices=choices))
    finish(sweep / "bare", make_report(last=None, choices={"criterion": "random"}))
    return sweep


def cells(folder, form="csv", **asked):
    text = render([folder], form, published=False, asked=Asked(**asked))
    return list(csv.DictReader(io.StringIO(text))) if form == "csv" else text


def criteria(folder, **asked):
    return [row["criterion"] for row in cells(folder, columns=SHOWN, **asked)]


def test_columns_come_in_the_order_they_are_asked_for(mixed):
    row = cells(mixed, columns=("drop", "criterion", "criterion.t"), where=["criterion.t=1"])[0]
    assert list(row.items()) == [
        ("drop", "2.333333"),
        ("drop_std", "0.57735"),
        ("criterion", "foad"),
        ("criterion.t", "1"),
    ]
    text = cells(mixed, "markdown", columns=("criterion", "drop"), where=["criterion=l1"])
    assert text.startswith("| criterion | drop |\n| --- | ---: |\n| l1 | 1.00 |\n")


@pytest.mark.parametrize("condition", ["=20054656", "<20054657", ">20054655"])
def test_counts_are_compared_in_full(tmp_path, make_report, condition):
    finish(tmp_path, make_report(sizes=(500, 20_054_656)))
    assert criteria(tmp_path, where=[f"macs_after{condition}"]) == ["foad"]


def test_what_is_not_known_is_blank_and_never_zero(mixed):
    [row] = cells(mixed, columns=SHOWN, where=["criterion=random"])
    assert (row["finetuned"], row["drop"]) == ("", "")
    asked = Asked(columns=SHOWN, where=["criterion=random"])
    [found] = json.loads(render([mixed], "json", asked=asked))
    assert found == {"criterion": "random", "finetuned": None, "drop": None, "macs": -60.0}
    text = cells(mixed, "markdown", columns=SHOWN, where=["criterion=random"])
    assert "| random (control) |" not in text
    assert "| random |  |  | -60.0 % |" in text


def test_json_holds_what_csv_holds(sweep):
    lines = csv.DictReader(io.StringIO(render([sweep], "csv")))
    found = json.loads(render([sweep], "json"))
    assert [{k: "" if v is None else str(v) for k, v in one.items()} for one in found] == list(
        lines
    )
    runs = json.loads(render([sweep], "json", per_run=True))
    assert [one["seed"] for one in runs] == [0, 1, 2, 0]


def test_rows_are_sorted_and_those_without_a_figure_come_last(mixed):
    assert criteria(mixed, sort="finetuned") == ["foad", "fpgm", "foad", "l1", "random"]
    assert criteria(mixed, sort="drop,desc") == ["foad", "fpgm", "foad", "l1", "random"]
    assert criteria(mixed, sort="drop,asc") == ["l1", "foad", "fpgm", "foad", "random"]
    assert criteria(mixed, sort="criterion,desc")[0] == "random"


@pytest.mark.parametrize(
    ("where", "left"),
    [
        (["criterion=l1,fpgm"], {"l1", "fpgm"}),
        (["criterion=F*"], {"foad", "fpgm"}),
        (["criterion.t=2"], {"foad"}),
        (["drop<2"], {"l1"}),
        (["drop > 2", "model=lenet5"], {"foad"}),
        (["finetuned=89"], {"l1"}),
        (["control=random channels"], {"random"}),
        (["seeds=3"], {"foad"}),
    ],
)
def test_rows_are_chosen(mixed, where, left):
    assert {*criteria(mixed, where=where)} == left


def test_a_table_for_each_of_what_is_asked_for(mixed):
    text = cells(mixed, "markdown", columns=("criterion", "drop"), by=("model", "criterion.t"))
    titles = [line for line in text.splitlines() if line.startswith("**")]
    assert titles == [
        "**model lenet5, criterion.t 1**",
        "**model lenet5, criterion.t 2**",
        "**model vgg16, criterion.t 1**",
    ]
    assert text.count("a ± b") == 1  # below the last of them
    assert r"\caption{model vgg16. Latency: median" in cells(mixed, "latex", by=("model",))
    rows = cells(mixed, columns=("drop",), by=("model",))
    assert [*rows[0]] == ["model", "drop", "drop_std"]  # one flat file


def test_a_terminal_shows_what_fits(mixed, monkeypatch):
    columns = ("method", "baseline", "pruned", "finetuned", "drop", "macs_counts", "params_counts")
    monkeypatch.setenv("COLUMNS", "80")
    text = cells(mixed, "rich", columns=columns)
    assert max(map(len, text.splitlines())) <= 80
    assert "Left out for lack of space (80 characters): MACs, counts; params, counts" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--columns", "methd"], "'methd' is not known; valid: baseline, best_val"),
        (["--columns", "methd"], "did you mean 'method'?; or a key of the runs, such as "),
        (["--sort", "drop,down"], "--sort drop,down: valid: drop, drop,asc or drop,desc"),
        (["--sort", "dropp"], "'dropp' is not known"),
        (["--by", "nothing"], "'nothing' is not known"),
        (["--where", "l1"], "--where l1: conditions read criterion=l1,fpgm or 'drop<1'"),
        (["--where", "drop<low"], "--where drop<low: < takes a number"),
        (["--where", "criterion=l1", "--where", "seeds=9"], "no row has criterion=l1 and seeds=9"),
        (["--columns", "drop", "--compare"], "leave out --per-run and --compare"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(mixed, capsys, words, said):
    assert main([str(mixed), *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("prunebench table: ")
    assert err.count("\n") == 1
    assert said in err


def test_conditions_hold_for_comparisons_too(mixed):
    with pytest.raises(DataError, match="no two methods here can be compared"):
        render([mixed], "csv", compare=True, asked=Asked(where=["criterion=l1"]))


TEX = next(filter(None, map(shutil.which, ("tectonic", "pdflatex"))), "")


@pytest.mark.skipif(not TEX, reason="no TeX is at hand")
def test_latex_compiles(mixed, tmp_path):
    text = render([mixed], "latex", asked=Asked(by=("model",)))
    page = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{text}"
    (tmp_path / "t.tex").write_text(page + r"\end{document}")
    done = subprocess.run([TEX, "t.tex"], cwd=tmp_path, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "t.pdf").stat().st_size > 1000
