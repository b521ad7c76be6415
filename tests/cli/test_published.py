"""``prunebench published``: lists, filters and checks the record, without torch."""

import csv
import io
import json
import re
import shlex

import pytest

from prunebench.cli import published, reproduce
from prunebench.errors import DataError


@pytest.fixture
def told(capsys, monkeypatch):
    """What a verb prints, on 120 columns."""
    monkeypatch.setenv("COLUMNS", "120")

    def command(verb, *words):
        code = verb.main(words)
        return code, capsys.readouterr().out

    return command


def test_the_verbs_need_no_torch(torch_free, tmp_path):
    for words in (
        ["published", "model=resnet20"],
        ["published", "check"],
        ["reproduce", "sfp-30-r20-c10"],
    ):
        done = torch_free.run("-m", "prunebench", *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr


def test_the_check_says_what_and_how_many(told):
    code, text = told(published, "check")
    assert code == 0
    assert "chip-r50-in-2: MACs: 4.11 G to 2.19 G is -46.7 %, printed -48.7 %\n" in text
    assert "NOT MARKED" not in text
    assert "\n990 rows of 342 methods: 232 quoted, 746 printed, 12 rebuilt, 0 re-run\n" in text
    assert "\n36 contradictions in 32 rows, all of them marked\n" in text
    assert "\nparameters of 432 baselines: 297 as one of our networks counts" in text


def test_what_is_not_marked_fails_the_check(capsys):
    from dataclasses import replace

    from prunebench.published.record import find

    row = find("chip-r50-in-2")
    assert published.check([replace(row, doubt=())]) == 1
    assert "NOT MARKED in its column doubt\n" in capsys.readouterr().out
    assert published.check([replace(find("foad-vgg16-c10"), doubt=("top1",))]) == 1
    assert "marked, but nothing contradicts it" in capsys.readouterr().out


def test_rows_are_filtered(told):
    _, text = told(
        published, "model=resnet20,resnet32", "dataset=cifar10", "method=FPGM,sfp", "tier=printed"
    )
    ids = re.findall(r"^ (\S+-c10)", text, re.MULTILINE)
    assert sorted(ids) == sorted(
        ["fpgm-mix-40-r20-c10", "fpgm-only-40-r20-c10", "fpgm-only-30-r20-c10"]
        + ["fpgm-mix-40-r32-c10", "fpgm-only-30-r32-c10", "fpgm-only-40-r32-c10"]
    )
    assert "6 rows. Tiers: quoted: " in text


def test_columns_that_find_no_room_are_named(told, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    _, text = told(published, "model=resnet20", "method=fpgm")
    assert max(map(len, text.splitlines())) <= 70
    assert "Left out for lack of space (70 characters): tier; year" in text.replace("\n", " ")


def test_marked_rows_are_marked(told):
    _, text = told(published, "model=vgg16", "dataset=cifar10", "method=hrank")
    assert "hrank-vgg16-c10 !" in text
    assert "! something contradicts a figure: prunebench published check" in text


def test_a_row_by_its_name_shows_all_that_is_known(told):
    _, text = told(published, "hrank-vgg16-c10")
    lines = dict(line.split(maxsplit=1) for line in text.splitlines())
    assert lines["params_reduction"] == "82.1"
    assert lines["doubt"] == "params_reduction"
    assert lines["contradiction"].endswith("-82.4 %, printed -82.1 %")


def test_formats(told):
    rows = json.loads(told(published, "dataset=cifar10", "--format", "json")[1])
    lines = list(
        csv.DictReader(io.StringIO(told(published, "dataset=cifar10", "--format", "csv")[1]))
    )
    assert len(rows) == len(lines) == 330
    [one] = [row for row in rows if row["id"] == "l1-b-r56-c10"]
    assert (one["top1"], one["macs_after"], one["drop"]) == (93.06, 90_900_000, None)
    assert (one["tier"], one["quoted"], one["doubt"]) == ("rebuilt", False, [])
    text = told(published, "l1-b-r56-c10", "--format", "markdown")[1]
    assert "125 M → 90.9 M (-27.6 %)" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["modl=resnet56"], "did you mean 'model'"),
        (["model=resnet1000"], "no published row has model=resnet1000"),
        (["hrank-vgg16"], "no published row is called 'hrank-vgg16'; did you mean 'hrank"),
    ],
)
def test_mistakes_are_one_line(words, message):
    with pytest.raises(DataError, match=re.escape(message)):
        published.main(words)


@pytest.mark.parametrize(
    ("row_id", "command"),
    [
        (
            "l1-a-r110-c10",
            "prunebench experiment=l1_resnet110_a",
        ),
        (
            "fpgm-only-40-r56-c10",
            "prunebench model=resnet56 dataset=cifar10 method=fpgm budget=macs budget.keep=0.474",
        ),
        ("thinet-conv-vgg16-in-1", "prunebench experiment=thinet_conv"),
        (
            "thinet-r56-c10",
            "prunebench model=resnet56 dataset=cifar10 method=thinet budget=macs "
            "budget.keep=0.5025",
        ),
        (
            "foad-vgg16-c10",
            "prunebench model=vgg16 dataset=cifar10 method=foad budget=macs budget.keep=0.363",
        ),
    ],
)
def test_the_nearest_command(told, row_id, command):
    code, text = told(reproduce, row_id)
    assert code == 0
    *about, last = text.splitlines()
    assert last == command
    assert all(line.startswith("# ") for line in about)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dhp-50-r20-c10"], "nothing of ours comes near DHP-50; criteria: aofp, apoz"),
        (["hrank-r18-c100-1"], "we have no network like resnet18 on cifar100"),
        (["l1-b-r34-in"], "no published row is called 'l1-b-r34-in'"),
    ],
)
def test_where_nothing_is_near_a_line_says_so(words, message):
    with pytest.raises(DataError, match=re.escape(message)):
        reproduce.main(words)


def test_settings_are_passed_on(told):
    _, text = told(reproduce, "foad-vgg16-c10", "recipe=short", "dataset.root=a b")
    assert shlex.split(text.splitlines()[-1])[-2:] == ["recipe=short", "dataset.root=a b"]
