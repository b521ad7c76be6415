"""Tables of runs on faces show LFW, and say so."""

import csv
import io
from dataclasses import replace

import pytest

from prunebench.published.record import load
from prunebench.records import Report, Score, Verification, finish
from prunebench.records.identity import deciding
from prunebench.reports.published import as_row
from prunebench.reports.table import render
from prunebench.run.write_up import figures
from tests.conftest import report


def verified(correct: int) -> Verification:
    """Ten folds of 600 pairs, the first of which has what the others lack."""
    folds = [correct // 10 + (fold < correct % 10) for fold in range(10)]
    return Verification(
        protocol="insightface", correct=folds, pairs=[600] * 10, thresholds=[1.4] * 10,
        far=1e-3, accepted=[0.95] * 10, roc=[[0.0, 0.5], [1.0, 1.0]],
    )  # fmt: skip


def faces(seed: int = 0) -> Report:
    """A report of FOAD on a network for faces."""
    plain = report(seed, choices={"model": "mobilefacenet", "dataset": "casia_webface"})
    corrects = {"baseline": 5958, "pruned": 4800, "finetuned_last": 5940}
    measurements = [
        replace(
            one,
            test=Score(
                correct=corrects[one.stage], correct_top5=None, seen=6000, loss=None, metric="lfw"
            ),
            verification={"lfw": verified(corrects[one.stage]), "agedb_30": verified(5400)},
        )
        for one in plain.measurements
    ]
    return replace(plain, measurements=measurements)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "faces").mkdir()
    finish(tmp_path / "faces", faces())
    return tmp_path


def test_a_single_run_says_lfw_and_no_top_1(folder):
    text = render([str(folder)], "markdown")
    assert "| LFW " in text
    assert "99.30" in text
    assert "99.00" in text
    assert "0.30" in text  # points
    assert "LFW: mean accuracy over the folds of pairs; drop" in text
    assert "lfw 99.00 ± 0.00 % over 10 folds (insightface), 95.00 % accepted at FAR 0.001" in text
    assert r"agedb\_30 90.00 ± 0.00 %" in text
    assert "op-1" not in text


def test_beside_top_1_each_row_says_what_it_is(folder):
    (folder / "digits").mkdir()
    finish(folder / "digits", report())
    text = render([str(folder)], "markdown")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert [line for line in lines if "mobilefacenet" in line and " LFW " in line]
    assert [line for line in lines if "lenet5" in line and " top-1 " in line]
    assert "Top-1 on the test split or LFW: mean accuracy over the folds of pairs; drop" in text
    lines = csv.DictReader(io.StringIO(render([str(folder)], "csv")))
    assert sorted(line["metric"] for line in lines) == ["LFW", "top-1"]


def test_the_published_row_beside_it_is_lfw_too():
    [row] = [one for one in load() if one.dataset == "casia_webface"]
    shown = as_row(row, "mobilefacenet", "casia_webface (faces_webface_112x112)")
    assert (shown.metric, shown.top1["published"].mean) == ("LFW", 99.02)
    [other, *_] = [one for one in load() if one.dataset == "cifar10"]
    assert as_row(other, other.model, "cifar10").metric == "top-1"


def test_trackers_get_it_by_its_name():
    found = figures(faces())
    assert found["finetuned_last/test_lfw"] == found["test_lfw"] == 99.0
    assert found["drop_points"] == pytest.approx(0.3)
    assert not [name for name in found if "top1" in name]


def test_what_is_not_said_is_as_before():
    values = {"recipe": {"finetune": {"head": None, "head_scale": None, "head_margin": None}}}
    assert deciding(values, {}) == {"recipe": {"finetune": {}}}
    assert Score(correct=1, correct_top5=None, seen=2, loss=None).title == "top-1"
