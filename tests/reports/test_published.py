"""Published rows are shown beside runs of the same network and data, and of no other."""

from dataclasses import replace

import pytest

from prunebench.published.record import find
from prunebench.reports.cells import cost
from prunebench.reports.figures import Change, Spread
from prunebench.reports.published import as_row, beside, elsewhere
from prunebench.reports.rows import Row


def run(model: str = "vgg16", dataset: str = "cifar10", params: float | None = 14_724_042) -> Row:
    change = None if params is None else Change(Spread(params), None, None)
    return Row(model=model, dataset=dataset, method="m", params=change)


def test_a_row_shows_what_is_printed_and_what_follows() -> None:
    row = as_row(find("l1-b-r56-c10"), "resnet56", "cifar10")
    assert row.drop.mean == pytest.approx(-0.02)
    assert row.params == Change(Spread(850_000.0), Spread(730_000.0), Spread(13.7))
    assert row.top1 == {"published": Spread(93.06), "baseline": Spread(93.04)}
    assert as_row(find("foad-vgg16-c10"), "vgg16", "cifar10").drop is None


def test_a_figure_in_doubt_is_left_out_and_named() -> None:
    row = as_row(find("hrank-vgg16-c10"), "vgg16", "cifar10")
    assert row.params.reduction.mean == pytest.approx(100 * (1 - 2.64 / 14.98))
    assert "in doubt: params_reduction" in row.note
    assert "quoted there" in as_row(find("hrank-1-vgg16-c10"), "vgg16", "cifar10").note


def test_a_dense_count_alone_is_not_taken_for_what_is_left() -> None:
    row = as_row(find("c-sgd-internal-layers-r50-in-1"), "resnet50", "imagenet")
    assert cost(row.macs) == "4.09 G → ? (-36.0 %)"
    left = as_row(find("fpgm-only-40-r20-c10"), "resnet20", "cifar10")
    assert cost(left.macs) == "18.7 M (-54.0 %)"


@pytest.mark.parametrize(
    ("ours", "there"),
    [
        (run(), True),
        (run(params=15_000_000), True),
        (run(params=923_130), False),  # a quarter of the width, whatever the row prints
        (run(params=None), False),
        (run("resnet20"), False),
        (run(dataset="digits"), False),
    ],
)
def test_only_the_same_network_and_data_stand_beside(ours: Row, there: bool) -> None:
    methods = {row.method for row in beside([ours])}
    assert ("HRank" in methods) == there
    assert ("FOAD" in methods) == there  # which prints no size of its baseline


def test_networks_go_by_their_names_in_the_record(make_report) -> None:
    caffe = run("imagenet_resnet50_caffe", "npz (imagenet.npz)", 25_557_032)
    assert "ThiNet-50 (TPAMI)" in {row.method for row in beside([caffe])}
    report = make_report(0, config={"model": {"name": "vgg16"}})
    ours = replace(run("torchvision", "imagenet", 138_357_544), runs=[("report.json", report)])
    [row, *_] = beside([ours])
    assert (row.model, row.dataset) == ("torchvision", "imagenet")
    assert row.method.startswith("ThiNet-Conv")


def test_what_does_not_stand_beside_is_counted() -> None:
    ours = run("resnet20", params=269_722)
    assert elsewhere([ours], beside([ours])) == [
        "6 published rows of resnet20 on cifar10 not shown: "
        "prunebench published model=resnet20 dataset=cifar10"
    ]
    narrow = run("resnet20", params=20_000)
    assert elsewhere([narrow], beside([narrow]))[0].startswith("10 published rows of resnet20")
    assert elsewhere([run("lenet5")], []) == []
