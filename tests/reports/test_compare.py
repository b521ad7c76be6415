"""Only methods that differ in nothing else are compared, and their verdicts follow the figures."""

import csv
import io
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from prunebench.errors import DataError
from prunebench.records import finish
from prunebench.records.predictions import PREDICTIONS, Predictions
from prunebench.reports.stability import _tau
from prunebench.reports.table import main, render


def run(folder, report, right=None):
    """Writes a report, and which of 1,000 images its last network got right."""
    finish(folder, report)
    if right is not None:
        answers = Predictions(top1=np.zeros(len(right), dtype=int), correct=right)
        answers.write(folder / PREDICTIONS / "finetuned_last.npz")


@pytest.fixture
def two(tmp_path, make_report):
    """Three seeds of two methods, the second four points behind."""
    for seed in range(3):
        for method, last in (("foad", 900), ("l1", 860 - seed)):
            report = make_report(seed, last=last, choices={"criterion": method})
            run(tmp_path / f"{method}{seed}", report)
    return tmp_path


def lines(folder):
    text = render([folder], "csv", compare=True).replace("'+", "+")  # no formula of a spreadsheet
    return list(csv.DictReader(io.StringIO(text)))


def test_a_difference_is_told_with_its_interval(two):
    [line] = lines(two)
    assert line["pair"] == "foad - l1"
    assert line["difference"] == "+4.10 ± 0.25"  # sd .1 over sqrt(3), times t = 4.303
    assert line["verdict"] == "better"
    assert line["seeds"] == "3 s"


def test_answers_that_were_kept_are_used(tmp_path, make_report):
    draw = np.random.default_rng(0)
    for seed in range(3):
        for method, share in (("foad", 0.90), ("l1", 0.86)):
            right = draw.random(1000) < share
            report = make_report(seed, last=int(right.sum()), choices={"criterion": method})
            run(tmp_path / f"{method}{seed}", report, right)
    [line] = lines(tmp_path)
    assert line["seeds"] == "3 i"
    text = render([tmp_path], "markdown", compare=True)
    assert "two-way analysis of variance" in text
    assert "paired t test" not in text


def scored(folder, make_report, right, method, seen=1000):
    """Writes a run that has read `seen` images, with the answers that it kept."""
    report = make_report(last=int(right.sum()), choices={"criterion": method})
    last = report.at("finetuned_last")
    test = replace(last.test, correct=int(right.sum()), correct_top5=None, seen=seen)
    others = [one for one in report.measurements if one is not last]
    run(folder, replace(report, measurements=[*others, replace(last, test=test)]), right)


def test_answers_to_other_images_are_not_paired(tmp_path, make_report):
    """One image could not be read, or there is but one, of which nothing spreads."""
    for images, ours, theirs in ((999, 800, 700), (1, 1, 0)):
        folder = tmp_path / str(images)
        scored(folder / "a", make_report, np.arange(images) < ours, "foad", images)
        other = 1 if images == 1 else 1000
        scored(folder / "b", make_report, np.arange(other) < theirs, "l1", other)
        [line] = lines(folder)
        assert line["difference"].endswith("± ?")
        assert (line["verdict"], line["seeds"]) == ("not distinguishable", "1 s")


def test_answers_that_are_not_those_of_the_report_are_refused(tmp_path, make_report):
    run(tmp_path / "a", make_report(last=900), np.arange(1000) < 900)
    report = make_report(last=900, choices={"criterion": "l1"})
    run(tmp_path / "b", report, np.arange(1000) < 800)
    with pytest.raises(DataError, match=r"b/report\.json are of another network"):
        render([tmp_path], "csv", compare=True)


def test_networks_without_multiply_adds_cost_the_same(tmp_path, make_report):
    for method in ("foad", "l1"):
        run(tmp_path / method, make_report(sizes=(10, 0), choices={"criterion": method}))
    assert len(lines(tmp_path)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"sizes": (500, 4021)},  # 0.5 % more MACs
        {"base": 901},  # another baseline
        {"config": {"recipe": {"epochs": 2}}},
        {"choices": {"criterion": "l1", "model": "resnet20"}},
        {"last": None},
    ],
)
def test_what_differs_in_more_than_the_method_is_not_compared(tmp_path, make_report, change):
    run(tmp_path / "a", make_report())
    run(tmp_path / "b", make_report(**{"choices": {"criterion": "l1"}, **change}))
    with pytest.raises(DataError, match="no two methods here can be compared"):
        render([tmp_path], "csv", compare=True)


def test_one_seed_without_answers_is_no_verdict(tmp_path, make_report):
    run(tmp_path / "a", make_report(last=900))
    run(tmp_path / "b", make_report(last=100, choices={"criterion": "l1"}))
    [line] = lines(tmp_path)
    assert (line["difference"], line["verdict"]) == ("+80.00 ± ?", "not distinguishable")


def test_seeds_are_paired(two, make_report):
    alone = make_report(7, last=100, choices={"criterion": "l1"})
    run(two / "alone", alone)  # foad has no such seed
    assert lines(two)[0]["difference"] == "+4.10 ± 0.25"


def test_the_command(two, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert main([str(two), "--compare"]) == 0
    assert re.search(r"foad - l1 +\+4.10 ± 0.25 +better +3 s", capsys.readouterr().out)


def test_where_data_lies_does_not_keep_methods_apart(tmp_path, make_report):
    for method, root in (("foad", "here"), ("l1", "there")):
        changes = {"choices": {"criterion": method}, "config": {"dataset": {"root": root}}}
        run(tmp_path / method, make_report(**changes))
    assert len(lines(tmp_path)) == 1


def test_controls_are_called_that(tmp_path, make_report):
    for method in ("foad", "random"):
        run(tmp_path / method, make_report(choices={"criterion": method}))
    [line] = lines(tmp_path)
    assert line["pair"] == "foad - random (control)"
    assert "(control): what a method has to beat" in render([tmp_path], "markdown", compare=True)


def test_it_is_said_whether_other_seeds_agree_on_the_order(tmp_path, make_report):
    """Of three pairs of methods seed 2 puts one the other way: tau = (2 - 1) / 3."""
    order = {"foad": (900, 905, 901), "l1": (890, 895, 902), "fpgm": (880, 885, 881)}
    for method, found in order.items():
        for seed, last in enumerate(found):
            report = make_report(seed, last=last, choices={"criterion": method})
            run(tmp_path / f"{method}{seed}", report)
    run(tmp_path / "once", make_report(last=870, choices={"criterion": "oracle"}))
    text = render([tmp_path], "markdown", compare=True)
    assert "Kendall's tau between the orders of 3 methods for two seeds" in text
    assert "(lenet5 on digits, 4 k MACs): mean 0.56, least 0.33, over 3 pairs of seeds" in text


def test_methods_that_tie_agree_with_no_order():
    assert _tau([1, 2, 2], [1, 2, 3]) == pytest.approx(2 / math.sqrt(2 * 3))
    assert _tau([1, 2, 2], [3, 2, 2]) == pytest.approx(-1)
    assert _tau([1, 1, 1], [1, 2, 3]) == 0


def test_two_methods_have_no_order_to_agree_on(two):
    assert "Kendall" not in render([two], "markdown", compare=True)
