"""Known counts of every network, built from its YAML, without prunebench.measure."""

import pickle
from dataclasses import fields
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from tests.models.counted import multiply_adds

CONF = Path(__file__).parents[2] / "conf" / "model"
CIFAR, MNIST, IMAGENET = (3, 32, 32), (1, 28, 28), (3, 224, 224)
FACE, NARROW = (3, 112, 112), (3, 112, 96)

GOLDEN = [
    ("vgg16", {}, CIFAR, 14_724_042, 313_201_664),
    ("vgg16", {"width": 0.25}, CIFAR, 923_130, 19_907_840),
    ("resnet20", {}, CIFAR, 269_722, 40_551_040),
    ("resnet32", {}, CIFAR, 464_154, 68_862_592),
    ("resnet44", {}, CIFAR, 658_586, 97_174_144),
    ("resnet56", {}, CIFAR, 853_018, 125_485_696),
    ("resnet110", {}, CIFAR, 1_727_962, 252_887_680),
    ("resnet20", {"shortcut": "B"}, CIFAR, 269_722 + 2_752, 40_551_040 + 262_144),
    ("resnet110", {"shortcut": "B"}, CIFAR, 1_727_962 + 2_752, 252_887_680 + 262_144),
    ("resnet20", {"width": 2.0}, CIFAR, 1_073_962, 161_318_144),
    ("resnet56_foad", {}, CIFAR, 821_114, 122_208_896),
    ("vgg19", {}, CIFAR, 20_035_018, 398_136_320),
    ("resnet164", {}, CIFAR, 1_703_258, 247_646_720),
    ("densenet40", {}, CIFAR, 1_059_298, 282_917_328),
    ("googlenet", {}, CIFAR, 6_166_250, 1_521_756_160),
    ("lenet5", {}, MNIST, 431_080, 2_293_000),
    ("lenet_300_100", {}, MNIST, 266_610, 266_200),
    ("mlp_500_300", {}, MNIST, 545_810, 545_000),
    ("mlp_512_512", {}, MNIST, 669_706, 668_672),
    ("vgg16_gap", {}, IMAGENET, 15_227_688, 15_347_142_656),
    ("vgg16_gap", {}, CIFAR, 14_719_818, 313_201_664),
    ("imagenet_resnet50_caffe", {}, IMAGENET, 25_557_032, 3_857_973_248),
    ("imagenet_resnet50", {}, IMAGENET, 25_557_032, 4_089_184_256),
    ("imagenet_mobilenet_v2", {}, IMAGENET, 3_504_872, 300_774_272),
    ("imagenet_vgg16_bn", {}, IMAGENET, 138_365_992, 15_470_264_320),
    ("mobilefacenet", {}, FACE, 1_003_136, 220_965_376),
    ("mobilefacenet", {}, NARROW, 999_552, 189_408_256),
    ("mobilefacenet", {"embedding": 512}, FACE, 1_200_512, 221_161_984),
]


def spec(option, **changes):
    """The object that conf/model/<option>.yaml describes."""
    values = OmegaConf.to_container(OmegaConf.load(CONF / f"{option}.yaml"))
    module, _, name = values.pop("_target_").rpartition(".")
    return getattr(import_module(module), name)(**values | changes)


def test_every_option_of_this_table_has_a_yaml():
    assert {row[0] for row in GOLDEN} <= {path.stem for path in CONF.glob("*.yaml")}


@cache
def without_data(option, changes, shape):
    """The network of a row, as a row has it; it is looked at alone."""
    with torch.device("meta"):
        built = spec(option, **dict(changes)).build(shape, 1000 if shape == IMAGENET else 10)
    return built.eval()


@pytest.mark.parametrize(("option", "changes", "shape", "params", "macs"), GOLDEN)
def test_params_and_macs_are_golden(option, changes, shape, params, macs):
    classes = 1000 if shape == IMAGENET else 10
    network = without_data(option, tuple(changes.items()), shape)
    assert sum(p.numel() for p in network.parameters()) == params
    logits, counted = multiply_adds(network, torch.zeros(1, *shape, device="meta"))
    assert logits.shape == (1, changes.get("embedding", 128) if "face" in option else classes)
    assert counted == macs


@pytest.mark.parametrize("option", ["vgg16", "resnet20", "resnet56_foad"])
def test_grey_images_and_other_class_counts_fit(option):
    network = spec(option).build((1, 32, 32), 7)
    assert network(torch.rand(2, 1, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_yaml_lists_exactly_the_fields(path):
    values = OmegaConf.to_container(OmegaConf.load(path))
    module, _, name = values.pop("_target_").rpartition(".")
    assert set(values) == {field.name for field in fields(getattr(import_module(module), name))}
    assert path.read_text().startswith("#")


@pytest.mark.parametrize(("option", "changes", "shape", "params", "macs"), GOLDEN)
def test_it_can_be_handed_to_another_process(option, changes, shape, params, macs):
    network = without_data(option, tuple(changes.items()), shape)
    again = pickle.loads(pickle.dumps(network))
    assert [(n, v.shape) for n, v in again.state_dict().items()] == [
        (n, v.shape) for n, v in network.state_dict().items()
    ]
