"""Networks given by their Python name, on the command line and in files."""

import json
import sys

import pytest
import torch

from prunebench import checkpoints
from prunebench.checkpoints import slimmed
from prunebench.errors import ConfigError
from prunebench.models import ModelSpec
from prunebench.models.imported import Imported
from prunebench.options import component
from prunebench.options.code import make_importable

NET = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, width, classes=10, sizes=()):
        if width > 99:
            raise ValueError("too wide;\\nreally")
        conv = nn.Conv2d(1, width, 3), nn.ReLU(), nn.Conv2d(width, 8, 3), nn.ReLU()
        super().__init__(*conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))

def make(width):
    return Net(width)
"""
QUICK = [
    *("model=import", "dataset=digits", "criterion=l1", "budget=macs", "recipe=quick"),
    *("recipe.baseline.epochs=1", "recipe.finetune.epochs=0", "run.latency_batch=1"),
]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a module `ours`, on Python's path for this test alone."""
    (tmp_path / "ours.py").write_text(NET)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield tmp_path
    sys.modules.pop("ours", None)


def spec(target, **kwargs):
    values = {"_target_": "prunebench.models.imported.Imported", "target": target}
    return component("model", {**values, "kwargs": kwargs or None, "code": None}, ModelSpec)


def test_the_class_is_called_with_the_keywords(own):
    built = spec("ours.Net", width=4, sizes=[[1, 2], {"a": None}])
    assert built.missing == ""
    assert built.build((1, 32, 32), 10)(torch.zeros(2, 1, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("target", "kwargs", "said"),
    [
        ("nowhere.Net", {}, "model.target: cannot find nowhere.Net (No module named 'nowhere')"),
        ("ours.Nett", {}, "cannot find ours.Nett (module 'ours' has no attribute 'Nett')"),
        ("ours.make", {"width": 4}, "and no class derived from torch.nn.Module"),
        ("os.system", {"command": "false"}, "and no class derived from torch.nn.Module"),
        ("json.JSONDecoder", {}, "and no class derived from torch.nn.Module"),
        ("ours.Net", {}, "missing a required argument: 'width'; it is ours.Net(width, classes=10"),
        ("ours.Net", {"wdth": 4}, "model.kwargs={'wdth': 4}: missing a required argument"),
        ("ours.Net", {"width": 4, "x": 1}, "got an unexpected keyword argument 'x'; it is ours.N"),
    ],
)
def test_what_cannot_be_built_is_said_before_anything_is_loaded(own, target, kwargs, said):
    told = spec(target, **kwargs).missing
    assert said in told
    assert "\n" not in told


def test_keywords_that_the_class_itself_refuses_are_one_line(own):
    with pytest.raises(ConfigError, match=r"ours.Net cannot be built \(ValueError: too wide;\)"):
        spec("ours.Net", width=100).build((1, 32, 32), 10)


@pytest.mark.parametrize("target", ["Net", "", "ours.", "ours/Net.py", "..Net"])
def test_what_is_no_name_of_a_class_is_refused(target):
    with pytest.raises(ConfigError, match="must name a class as Python imports it"):
        Imported(target=target, kwargs=None, code=None)


def test_what_the_module_holds_tells_a_network_from_others(own, tmp_path):
    assert spec("ours.Net").files == {"code": own / "ours.py"}
    assert spec("nowhere.Net").files == spec("nowhere.more.Net").files == {}
    assert Imported(target="ours.Net", kwargs=None, code="lib").missing.endswith("no file lib")
    assert Imported(target="ours.Net", kwargs=None, code=str(own)).files == {"code": own}


def test_a_folder_comes_last_on_the_path_and_only_if_it_is_needed(own, tmp_path):
    before = list(sys.path)
    for target in ("json.Net", "ours.Net", "nowhere.Net", ""):
        make_importable(target, [tmp_path])
    assert sys.path == before
    (tmp_path / "further").mkdir()
    (tmp_path / "further" / "kept_elsewhere.py").write_text("")
    make_importable("kept_elsewhere.Net", [tmp_path, tmp_path / "further"])
    assert sys.path == [*before, str(tmp_path / "further")]


def test_a_slim_file_asks_for_the_import(own, monkeypatch):
    model = {"_target_": "prunebench.models.imported.Imported", "target": "ours.Net"}
    content = {
        "format": slimmed.FORMAT, "model": {**model, "kwargs": {"width": 4}, "code": None},
        "shape": [1, 8, 8], "classes": 10, "plans": [], "mean": [0.0], "std": [1.0],
        "network": spec("ours.Net", width=4).build((1, 8, 8), 10).state_dict(),
    }  # fmt: skip
    checkpoints.save(own / "slim.pt", content)
    assert slimmed.load(own / "slim.pt")[0].out_channels == 4  # it is imported already
    del sys.modules["ours"]
    with pytest.raises(ConfigError, match=r"names the class ours.Net; .* import ours first or put"):
        slimmed.load(own / "slim.pt")
    assert "ours" not in sys.modules
    monkeypatch.setenv("PYTHONPATH", str(own))
    assert slimmed.load(own / "slim.pt")[0].out_channels == 4
    content["model"]["target"] = "os.system"  # imported, and yet not called
    checkpoints.save(own / "slim.pt", content)
    with pytest.raises(ConfigError, match="no class derived from torch.nn.Module"):
        slimmed.load(own / "slim.pt")


def test_from_the_current_folder_and_from_that_of_the_options(prunebench, tmp_path):
    (tmp_path / "ours.py").write_text(NET)
    done = prunebench(*QUICK, "model.target=ours.Net", "model.kwargs={width: 6}")
    assert done.returncode == 0, done.stderr
    [path] = tmp_path.rglob("report.json")
    report = json.loads(path.read_text())
    assert report["config"]["model"]["kwargs"] == {"width": 6}
    assert report["contents"].keys() == {"model.code"}
    stages = [measured["stage"] for measured in report["measurements"]]
    assert stages == ["baseline", "pruned", "finetuned_last"]
    pruned, last = ({**measured, "stage": ""} for measured in report["measurements"][1:])
    assert pruned == last  # no epochs: nothing is measured twice
    both = [path.parent / "predictions" / f"{stage}.npz" for stage in stages[1:]]
    assert both[0].read_bytes() == both[1].read_bytes()
    (tmp_path / "my").mkdir()
    (tmp_path / "ours.py").rename(tmp_path / "my" / "ours.py")
    typed = ["model.target=ours.Net", "model.kwargs={width: 6, classes: 4}", "run.dry_run=true"]
    done = prunebench(*QUICK, *typed)
    assert done.returncode == 2
    assert "cannot find ours.Net" in done.stderr
    done = prunebench("--config-dir", "my", *QUICK, *typed)
    assert done.returncode == 2
    assert done.stderr.endswith("must return logits [n, 10], got [1, 4] for one image\n")
