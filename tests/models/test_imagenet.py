"""torchvision's classifiers: names, weights and heads."""

import urllib.error

import pytest
import torch
from torch import nn
from torchvision import models

from prunebench.errors import CheckpointError, ConfigError
from prunebench.models.imagenet import Torchvision, _replace_head


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet51", "did you mean 'resnet50'"),
        ("fcn_resnet50", "valid: alexnet, "),  # segmentation
        ("quantized_resnet50", "valid: alexnet, "),
        ("get_model", "valid: alexnet, "),
    ],
)
def test_names_that_are_no_classifiers_are_refused(name, hint):
    with pytest.raises(ConfigError, match=hint):
        Torchvision(name=name, weights=None)


def test_unknown_weights_are_refused():
    with pytest.raises(ConfigError, match="valid: DEFAULT, IMAGENET1K_V1, IMAGENET1K_V2"):
        Torchvision(name="resnet50", weights="IMAGENET1K_V3")


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_classifiers_are_left_out(name):
    network = Torchvision(name=name, weights=None).build((3, 96, 96), 10)
    assert not [key for key in network.state_dict() if key.lower().startswith("aux")]
    assert network.train()(torch.rand(2, 3, 96, 96)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("inception_v3", (3, 32, 32)), ("vit_b_16", (3, 64, 64)), ("resnet18", (1, 28, 28))],
)
def test_images_that_do_not_fit_are_refused_in_one_line(name, shape):
    size = " x ".join(map(str, shape))
    with pytest.raises(ConfigError, match=f"{name} cannot take images of {size}") as caught:
        Torchvision(name=name, weights=None).build(shape, 10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("resnet18", "fc"),
        ("mobilenet_v2", "classifier.1"),
        ("squeezenet1_1", "classifier.1"),
        ("inception_v3", "fc"),
        ("densenet121", "classifier"),
    ],
)
def test_only_the_head_is_replaced(name, head):
    with torch.device("meta"):
        options = {"init_weights": False} if name == "inception_v3" else {}
        network = models.get_model(name, weights=None, **options)
        before = {key: id(value) for key, value in network.named_parameters()}
        _replace_head(network, 7)
    new = [key for key, value in network.named_parameters() if id(value) != before[key]]
    assert new == [f"{head}.weight", f"{head}.bias"]
    assert isinstance(network.get_submodule(head), nn.Linear | nn.Conv2d)
    assert network.get_submodule(head).weight.shape[0] == 7


def test_a_failed_download_is_one_line(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"could not be downloaded .*put it at .*resnet18-"):
        Torchvision(name="resnet18", weights="DEFAULT").build((3, 64, 64), 10)


def test_weights_are_loaded_and_a_new_head_put_on(monkeypatch):
    torch.manual_seed(3)
    stored = models.resnet18(weights=None).state_dict()
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *args, **kwargs: stored
    )
    network = Torchvision(name="resnet18", weights="IMAGENET1K_V1").build((3, 64, 64), 10)
    assert torch.equal(network.conv1.weight, stored["conv1.weight"])
    assert network.fc.weight.shape == (10, 512)


def test_images_are_shown_as_the_weights_were_measured():
    first, second = (
        Torchvision(name="resnet50", weights=f"IMAGENET1K_V{n}").preset for n in (1, 2)
    )
    assert first is not None
    assert second is not None
    assert (first.size, round(first.size / first.crop), first.interpolation) == (
        224,
        256,
        "bilinear",
    )
    assert (second.size, round(second.size / second.crop)) == (224, 232)
    large = Torchvision(name="efficientnet_v2_m", weights="DEFAULT").preset
    assert large is not None
    assert (large.size, large.crop, large.mean) == (480, 1.0, (0.485, 0.456, 0.406))
    assert Torchvision(name="vit_b_16", weights="DEFAULT").preset is not None
    assert Torchvision(name="resnet50", weights=None).preset is None


def test_weights_with_their_own_head_need_no_training():
    assert Torchvision(name="resnet18", weights="DEFAULT").pretrained(1000)
    assert not Torchvision(name="resnet18", weights="DEFAULT").pretrained(10)
    assert not Torchvision(name="resnet18", weights=None).pretrained(1000)
