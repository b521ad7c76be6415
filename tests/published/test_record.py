"""The published record is complete, has sources, and is readable by the standard library."""

import csv
import re
from pathlib import Path

import pytest

from prunebench.errors import DataError
from prunebench.published import record
from prunebench.published.record import COLUMNS, Figure, figure, find, load, read

FOLDER = Path(record.__file__).parent
GOOD = dict.fromkeys(COLUMNS, "") | {
    "id": "m-vgg16-c10",
    "model": "vgg16",
    "method": "M",
    "source": "S",
    "top1": "93.0",
    "baseline_top1": "93.5",
}


def write(folder: Path, **changes: str) -> Path:
    path = folder / "cifar10.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, sorted(COLUMNS))
        writer.writeheader()
        writer.writerow(GOOD | changes)
    return path


def test_every_row_says_whose_it_is_and_where_it_stands() -> None:
    rows = load()
    assert len(rows) == 990
    assert {row.dataset for row in rows} == {"cifar10", "cifar100", "imagenet", "casia_webface"}
    assert len({row.id for row in rows}) == len(rows)
    for row in rows:
        assert row.method, row.id
        assert row.source, row.id
        assert row.convention, row.id
        assert re.fullmatch(r"[a-z0-9.-]{6,34}", row.id), row.id
    text = "".join(path.read_text() for path in FOLDER.glob("*.csv"))
    assert not re.search(r"https?://|/home/|file id", text)


def test_figures_of_note() -> None:
    foad = find("foad-vgg16-c10")
    assert (foad.value("top1"), foad.reduction("params"), foad.reduction("macs")) == (
        *(93.81, 87.1),
        63.7,
    )
    assert foad.drop is None  # its baseline is not known, so neither is the drop
    assert find("foad-mobilefacenet-lfw").value("top1") == 99.02
    thinet = find("thinet-50-r50-in")
    assert thinet.drop == pytest.approx(3.27)  # 75.30 - 72.03
    assert thinet.reduction("macs") == pytest.approx(100 * (1 - 1.81 / 4.09))
    # the authors' README has no baseline for these two; their paper's is 68.34, not 71.50
    for row_id in ("thinet-gap-vgg16-gap-in", "thinet-tiny-vgg16-gap-in"):
        assert find(row_id).value("baseline_top1") == 68.34
    # the README of HRank has one line a network; the others are quoted
    primary = {row.id for row in load() if row.source.startswith("lmbxmu/HRank@")}
    assert {"hrank-vgg16-c10", "hrank-r56-c10", "hrank-r110-c10"} <= primary
    assert find("hrank-3-vgg16-c10").quoted
    assert "three" not in find("fpgm-ft-160-epochs-vgg16-c10").convention
    assert "three" in find("fpgm-only-40-r56-c10").convention


def test_what_is_in_doubt_is_shown_and_not_derived_from(tmp_path: Path) -> None:
    [row] = read(write(tmp_path, drop="0.6", doubt="baseline_top1"))
    assert row.figures["baseline_top1"].value == 93.5
    assert row.value("baseline_top1") is None
    assert row.drop == 0.6
    [row] = read(write(tmp_path, drop="0.6"))
    assert row.drop == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("changes", "reduction"),
    [
        ({"macs_factor": "2.00"}, 50.0),
        ({"macs_before": "100", "macs_after": "40"}, 60.0),
        ({"macs_before": "100", "macs_after": "40", "macs_reduction": "61"}, 61.0),
        ({"macs_after": "40"}, None),
    ],
)
def test_a_reduction_is_printed_or_follows(
    tmp_path: Path, changes: dict[str, str], reduction: float | None
) -> None:
    [row] = read(write(tmp_path, **changes))
    assert row.reduction("macs") == reduction


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top1": "93,0"}, "cifar10.csv, m-vgg16-c10: could not convert string to float: '93,0'"),
        ({"quoted": "no"}, "cifar10.csv, m-vgg16-c10: quoted is 'yes' or empty"),
        ({"doubt": "drop"}, "cifar10.csv, m-vgg16-c10: doubt names drop, which is empty"),
    ],
)
def test_slips_in_the_file_are_named(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        read(write(tmp_path, **changes))


def test_columns_are_those_there_are(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("id,flops\n")
    with pytest.raises(DataError, match="column"):
        read(path)


@pytest.mark.parametrize(
    ("text", "value", "step"),
    [("93.40", 93.4, 0.01), ("850000", 850000, 10000), ("47", 47, 1), ("-0.2", -0.2, 0.1)],
)
def test_digits_say_how_exact_a_figure_is(text: str, value: float, step: float) -> None:
    assert figure(text) == Figure(value, pytest.approx(step), text)


def test_a_row_that_is_not_there_is_answered_with_the_nearest() -> None:
    with pytest.raises(DataError, match="'foad-vgg16'; did you mean 'foad-vgg16-c10'"):
        find("foad-vgg16")
