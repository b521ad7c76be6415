"""timm's networks: names, weights and heads."""

import sys

import pytest
import torch

from prunebench.errors import CheckpointError, ConfigError
from prunebench.models.timm import Timm


def test_without_timm_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        ConfigError, match=r"model=timm needs timm: pip install 'prunebench\[timm\]"
    ):
        Timm(name="resnet18", weights=None)


@pytest.fixture
def timm():
    return pytest.importorskip("timm")


@pytest.mark.parametrize(
    ("name", "weights", "said"),
    [
        ("resnet19", None, "'model.name=resnet19' is not known to timm; did you mean 'resnet18'?"),
        ("qqqqqqqq", None, r"is not known to timm; timm.list_models\(\) has all"),
        ("resnet18", "a9_in1k", "valid: DEFAULT, a1_in1k, .* did you mean 'a3_in1k'?"),
        ("resnet10t.c3_in1k", None, "did you mean 'resnet10t'?"),
    ],
)
def test_unknown_names_are_refused(timm, name, weights, said):
    with pytest.raises(ConfigError, match=said):
        Timm(name=name, weights=weights)


def test_it_is_built_for_the_data(timm):
    network = Timm(name="test_resnet", weights=None).build((1, 32, 32), 7)
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 7)


def test_weights_say_how_they_see_images_and_whether_their_head_fits(timm):
    spec = Timm(name="resnet18", weights="a1_in1k")
    shown = spec.preset
    assert shown is not None
    assert (shown.size, shown.crop, shown.interpolation) == (224, 0.95, "bicubic")
    assert spec.pretrained(1000)
    assert not spec.pretrained(10)
    plain = Timm(name="resnet18", weights=None)
    assert plain.preset is None
    assert not plain.pretrained(1000)


def test_a_failed_download_is_one_line(timm, monkeypatch):
    def refuse(name, **options):
        assert (name, options["pretrained"]) == ("resnet18.a1_in1k", True)
        raise OSError("no route\nto host")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(
        CheckpointError, match=r"could not load them \(no route\); download"
    ) as told:
        Timm(name="resnet18", weights="a1_in1k").build((3, 64, 64), 10)
    assert "\n" not in str(told.value)
