"""Found structures: widths as found or scaled back, with fresh weights."""

from pathlib import Path

import pytest
import torch
from torch import nn

from prunebench import measure, records
from prunebench.channels import trace
from prunebench.errors import ConfigError
from prunebench.models import ModelSpec
from prunebench.models.found import Found
from prunebench.options import component
from prunebench.records.identity import as_origin

SHAPE = (3, 16, 16)
EXAMPLE = torch.zeros(1, *SHAPE)
VGG = {"_target_": "prunebench.models.vgg.Vgg16", "width": 0.125}
RESNET = {
    "_target_": "prunebench.models.resnet.Resnet", "depth": 14, "shortcut": "A", "width": 0.5,
}  # fmt: skip
MLP = {"_target_": "prunebench.models.mlp.Mlp", "widths": [20, 10]}


def report(folder: Path, model: dict, widths: dict[str, int]) -> str:
    written = records.Report(
        config={"model": model}, choices={}, seed=0, digest="", environment={}, seconds={},
        plan={name: list(range(width)) for name, width in widths.items()}, layers=[], steps=[],
        measurements=[], convention="", note="", finished_at="",
    )  # fmt: skip
    path = folder / "report.json"
    path.write_text(records.to_json(written))
    return str(path)


def widths_of(network: nn.Module) -> dict[str, int]:
    return {group.name: group.size for group in trace(network, EXAMPLE).groups}


def test_as_found(tmp_path):
    torch.manual_seed(0)
    found = {"features.conv1_1": 3, "features.conv5_3": 17}
    network = Found(report=report(tmp_path, VGG, found), macs=None).build(SHAPE, 5)
    assert widths_of(network).items() >= {**found, "features.conv1_2": 8}.items()
    first, second = network.features.conv1_1, network.features.conv1_2
    # He by fan-out in the dense network, then scaled to the new fan-in
    assert second.weight.std().item() == pytest.approx(
        (2 / (8 * 9)) ** 0.5 * (8 / 3) ** 0.5, rel=0.1
    )
    assert first.weight.shape == (3, 3, 3, 3)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (VGG, {"features.conv1_1": 4, "features.conv3_1": 8, "features.conv5_1": 4}),
        (RESNET, {"layer1.0.conv1": 2, "layer2.0.conv1": 15, "layer3.1.conv1": 8}),
        (MLP, {"fc1": 4, "fc2": 9}),
    ],
    ids=["vgg", "resnet", "mlp"],
)
def test_scaled_back_to_the_macs_of_the_original(tmp_path, model, found):
    path = report(tmp_path, model, found)
    dense = component("model", model, ModelSpec).build(SHAPE, 5)
    budget = measure.macs(dense, EXAMPLE)
    sizes = widths_of(dense)
    counts = []
    for share in (0.8, 0.9, 1.0):
        network = Found(report=path, macs=share).build(SHAPE, 5)
        counts.append(measure.macs(network, EXAMPLE))
        assert counts[-1] <= share * budget
        now = widths_of(network)
        for name, size in sizes.items():
            if name not in found:
                assert now[name] == size  # residual streams and what was left alone
    assert counts == sorted(counts)
    # one channel more in any pruned layer would be too much: the factor is the largest that fits
    assert counts[-1] > 0.9 * budget
    ratios = [now[name] / width for name, width in found.items()]
    assert max(ratios) - min(ratios) <= 1 / min(found.values())
    assert torch.isfinite(network(torch.randn(2, *SHAPE))).all()


def test_mistakes(tmp_path):
    with pytest.raises(ConfigError, match="model.report: cannot read .*nothing.json"):
        Found(report=str(tmp_path / "nothing.json"), macs=None).build(SHAPE, 5)
    path = report(tmp_path, VGG, {})
    with pytest.raises(ConfigError, match="prunes nothing"):
        Found(report=path, macs=None).build(SHAPE, 5)
    path = report(tmp_path, VGG, {"conv1": 3})
    with pytest.raises(ConfigError, match="prunes 'conv1', which its network does not have"):
        Found(report=path, macs=None).build(SHAPE, 5)
    with pytest.raises(ConfigError, match="macs must be positive"):
        Found(report=path, macs=0.0)
    path = report(tmp_path, VGG, {"features.conv1_1": 3})
    with pytest.raises(ConfigError, match="layers that were not pruned already have"):
        Found(report=path, macs=0.1).build(SHAPE, 5)
    lenet = {"_target_": "prunebench.models.lenet.Lenet5"}
    path = report(tmp_path, lenet, {"conv1": 3, "conv2": 49})
    with pytest.raises(ConfigError, match="has no width to scale"):
        Found(report=path, macs=1.0).build((1, 28, 28), 5)


def test_a_report_that_leads_back_to_itself_is_refused(tmp_path):
    folders = [tmp_path / name for name in "ab"]
    for folder, other in zip(folders, reversed(folders), strict=True):
        folder.mkdir()
        model = {
            "_target_": "prunebench.models.found.Found", "report": str(other / "report.json"),
            "macs": None,
        }  # fmt: skip
        path = report(folder, model, {"fc1": 3})
    with pytest.raises(ConfigError, match="b/report.json leads back to itself"):
        Found(report=path, macs=None).build(SHAPE, 5)


def test_only_a_found_structure_has_an_origin(tmp_path):
    path = report(tmp_path, VGG, {"features.conv1_1": 3})
    origin = Found(report=path, macs=None).origin()
    assert origin == as_origin(records.from_json(records.Report, Path(path).read_text(), path))
    assert component("model", dict(VGG), ModelSpec).origin() is None


def test_a_report_cannot_ask_for_more_than_the_machine_has(tmp_path):
    path = report(tmp_path, {**VGG, "width": 1e9}, {"features.conv1_1": 3})
    with pytest.raises(ConfigError, match=r"model.report describes a network of more than .* GB"):
        Found(report=path, macs=None).build(SHAPE, 5)
