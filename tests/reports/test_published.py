"""Published figures: complete, sourced, free of contradictions, and set beside the right runs."""

from pathlib import Path

import pytest
import yaml

from prunebench.errors import DataError
from prunebench.options import conf_dir
from prunebench.reports.figures import Change, Spread
from prunebench.reports.published import beside, load_published
from prunebench.reports.rows import Row

FOLDER = conf_dir() / "published"
GOOD = {
    "model": "vgg16",
    "dataset": "cifar10",
    "method": "M",
    "source": "S",
    "convention": "C",
    "metric": "top-1",
    "top1": 93.0,
    "baseline_top1": 93.5,
    "baseline_params": 100,
    "baseline_macs": 1000,
    "params": 25,
    "macs": 400,
    "params_reduction": 75.0,
    "macs_reduction": 60,
}


def write(folder: Path, **changes: object) -> Path:
    (folder / "x.yml").write_text(yaml.safe_dump({"rows": [GOOD | changes]}))
    return folder


def test_all_shipped_figures_load() -> None:
    found = load_published(FOLDER)
    assert len(found) == 49
    assert len(list(FOLDER.glob("*.yml"))) == 9
    assert all(one.source and one.convention for one in found)
    for path in FOLDER.glob("*.yml"):
        assert path.read_text().startswith("# ")


def test_shipped_figures_of_note() -> None:
    by_name = {(one.model, one.method): one for one in load_published(FOLDER)}
    foad = by_name["vgg16", "FOAD (paper)"]
    assert (foad.top1, foad.params_reduction, foad.macs_reduction) == (93.81, 87.1, 63.7)
    assert foad.params is foad.macs is foad.baseline_top1 is None
    assert foad.row().drop is None  # its baseline is not known, so neither is the drop
    face = by_name["mobilefacenet", "FOAD (paper)"]
    assert (face.top1, face.params_reduction, face.macs_reduction) == (99.02, 58.0, 63.6)
    thinet = by_name["imagenet_resnet50", "ThiNet-50 (TPAMI)"].row()
    assert thinet.drop.mean == pytest.approx(3.27)  # 75.30 - 72.03
    assert thinet.macs.reduction.mean == pytest.approx(100 * (1 - 3.41 / 7.72))
    geometric = by_name["resnet20", "FPGM 40 %"].row()
    assert geometric.drop.mean == pytest.approx(1.76)  # 92.20 - 90.44
    assert by_name["imagenet_mobilenet_v1", "Probability-based pruning"].top1 is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"params_reduction": 70.0}, "row 1: params_reduction is 70.0, but .* give 75.0"),
        ({"macs_reduction": 61.0}, "row 1: macs_reduction is 61.0, but .* give 60.0"),
        ({"source": ""}, "row 1: source must not be empty"),
        ({"top1": "93"}, "row 1: top1 must be float | None, got '93'"),
        ({"flops": 3}, "row 1: flops is not a known field"),
    ],
)
def test_contradictions_and_slips_are_named(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message.replace("|", r"\|")):
        load_published(write(tmp_path, **changes))


def test_missing_field_is_named(tmp_path: Path) -> None:
    values = {key: value for key, value in GOOD.items() if key != "convention"}
    (tmp_path / "x.yml").write_text(yaml.safe_dump({"rows": [values]}))
    with pytest.raises(DataError, match="row 1: convention is missing"):
        load_published(tmp_path)
    (tmp_path / "x.yml").write_text("rows: {")
    with pytest.raises(DataError, match=r"x\.yml is not valid YAML"):
        load_published(tmp_path)
    (tmp_path / "x.yml").write_text("[]")
    with pytest.raises(DataError, match=r"x\.yml has no list 'rows'"):
        load_published(tmp_path)


def test_rounding_is_no_contradiction(tmp_path: Path) -> None:
    assert load_published(write(tmp_path, params_reduction=75.4))


@pytest.mark.parametrize(
    ("model", "dataset", "params", "expected"),
    [
        ("vgg16", "cifar10", 100.0, 1),
        ("vgg16", "cifar10", 104.0, 1),
        ("vgg16", "cifar10", 50.0, 0),  # a narrow network
        ("vgg16", "cifar10", None, 1),
        ("vgg16", "cifar100", 100.0, 0),
        ("vgg19", "cifar10", 100.0, 0),
    ],
)
def test_only_the_same_network_and_data_stand_beside(
    tmp_path: Path, model: str, dataset: str, params: float | None, expected: int
) -> None:
    change = None if params is None else Change(Spread(params), None, None)
    ours = Row(model=model, dataset=dataset, method="m", params=change)
    assert len(beside([ours], load_published(write(tmp_path)))) == expected
