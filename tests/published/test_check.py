"""The check finds every contradiction that was found by hand in the record, and no other."""

from dataclasses import replace

import pytest

from prunebench.published.check import findings
from prunebench.published.nets import tier
from prunebench.published.record import Published, figure, find, load

BASE = Published(
    id="x",
    dataset="cifar10",
    model="resnet56",
    method="M",
    paper="P",
    year="2020",
    convention="C",
    source="S",
    notes="",
    quoted=False,
    beside=False,
    doubt=(),
    figures={},
)


def row(model: str = "resnet56", source: str = "S", **figures: str) -> Published:
    read = {column: figure(text) for column, text in figures.items()}
    return replace(BASE, model=model, source=source, figures=read)


def test_every_contradiction_is_marked_and_every_mark_is_one() -> None:
    found = findings(load())
    assert [finding.text for finding in found if not finding.marked] == []
    assert {row.id for row in load() if row.doubt} == {finding.row.id for finding in found}


@pytest.mark.parametrize(
    ("row_id", "said"),
    [
        ("hrankplus-r56-c10-3", "240 k is -71.8 %, printed -70 %"),
        ("chip-r56-c10-2", "34.78 M is -72.3 %, printed -74.1 %"),
        ("chip-r50-in-2", "2.19 G is -46.7 %, printed -48.7 %"),
        ("fpgm-only-40-pre-r110-c10", "drop of -0.06 points, printed -0.16"),
        ("greg-1-vgg19-c100", "drop of 6.47 points, printed 6.67"),
        ("greg-2-vgg19-c100", "drop of 6.27 points, printed 6.47"),
        ("polarization-r56-c100", "drop of 0.03 points, printed 0.06"),
        ("depgraph-r56-c10-1", "drop of -0.24 points, printed -0.38"),
        ("depgraph-no-sl-vgg19-c100", "drop of 5.90 points, printed 5.44"),
        ("bnscale-bnscale-r18-in-1", "parameters grow: 11.69 M to 17.56 M"),
        ("magl2-growingreg-r18-in-1", "printed -75.29 %"),
        ("magl2-grouplasso-r18-in-2", "printed -16.46 %"),
        ("lamp-r50-in-3", "printed -75.29 %"),
        ("hrank-r18-c100-1", "drop of 0.71 points, printed 0.69"),
        ("abcpruner-30-r50-in", "944.85 M as -68.68 % implies a baseline of 3.0168 G"),
        ("dnal-1e-4-vgg16-in", "baseline of 76.13/92.86 % is resnet50's"),
        ("thinet-conv-vgg16-in-1", "baseline of 138.24 M parameters differs in one digit"),
        ("mfmi-e-r56-c100-1", "baseline of 71.77 M MACs; resnet56 has 125,491,456"),
        ("mfmi-r50-in", "1.41 G as -34.4 % implies a baseline of 2.1494 G"),
    ],
)
def test_slips_found_by_hand_are_found(row_id: str, said: str) -> None:
    told = [finding.text for finding in findings(load()) if finding.row.id == row_id]
    assert any(said in text for text in told), told


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        (
            {"params_before": "853018", "params_after": "426509", "params_factor": "2.5"},
            "printed 2.5x",
        ),
        ({"macs_reduction": "50.0", "macs_factor": "2.50"}, "printed -50 %, printed 2.5x"),
        ({"params_before": "430000"}, "baseline of 430 k parameters; resnet56 has 853,018"),
        ({"params_before": "863018"}, "differs in one digit from resnet56's 853,018"),
    ],
)
def test_a_contradiction_is_told(figures: dict[str, str], said: str) -> None:
    [finding] = findings([row(**figures)])
    assert said in finding.text
    assert not finding.marked
    assert findings([replace(row(**figures), doubt=finding.columns[-1:])])[0].marked


@pytest.mark.parametrize(
    "figures",
    [
        {"params_before": "850000", "params_after": "240000", "params_reduction": "72"},
        {"params_before": "860000"},  # with other shortcuts
        {"macs_before": "125490000"},
        {"macs_before": "250980000"},  # two per multiply-add
        {"macs_before": "130000000", "macs_after": "65000000", "macs_factor": "1.99"},
        {"baseline_top1": "93.26", "top1": "93.17", "drop": "0.09"},
        {"baseline_top1": "93.3", "top1": "93.17", "drop": "0.09"},
    ],
)
def test_rounding_and_conventions_are_no_contradiction(figures: dict[str, str]) -> None:
    assert findings([row(**figures)]) == []


def test_one_source_gives_one_network_one_size() -> None:
    rows = [row("nasnet", macs_before="1520"), row("nasnet", macs_before="1620")]
    rows = [replace(one, id=str(i)) for i, one in enumerate(rows)]
    assert [finding.row.id for finding in findings(rows)] == ["0", "1"]
    assert findings([rows[0], replace(rows[1], source="T")]) == []


def test_tiers() -> None:
    assert tier(find("l1-b-r56-c10")) == "rebuilt"
    assert tier(find("thinet-70-r50-in-1")) == "rebuilt"
    assert tier(find("hrank-r56-c10")) == "printed"
    assert tier(find("hrank-3-r56-c10")) == "quoted"
    # that net's head is another one than ours: 5.4 M parameters, ours has 5.26 M
    assert tier(find("l1-a-vgg16-c10")) == "printed"
