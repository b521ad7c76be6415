"""Every conf/dataset YAML lists exactly the fields of its class, and builds."""

from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
from omegaconf import OmegaConf

PATHS = sorted((Path(__file__).parents[2] / "conf" / "dataset").glob("*.yaml"))


def test_all_options_are_here():
    known = {"cifar10", "cifar100", "digits", "fashion_mnist", "folder", "imagenet", "mnist", "npz"}
    assert known <= {path.stem for path in PATHS}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_yaml_lists_exactly_the_fields(path):
    config = OmegaConf.load(path)
    if OmegaConf.is_missing(config, "path"):
        config.path = "own.npz"
    values = OmegaConf.to_container(config, resolve=True)
    module, _, name = values.pop("_target_").rpartition(".")
    target = getattr(import_module(module), name)
    assert set(values) == {field.name for field in fields(target)}
    assert target(**values).val_size != 0
    assert path.read_text().startswith("#")


def test_the_root_is_data_unless_the_environment_says_otherwise(monkeypatch):
    path = next(path for path in PATHS if path.stem == "cifar10")
    monkeypatch.delenv("PRUNEBENCH_DATA", raising=False)
    assert OmegaConf.load(path).root == "data"
    monkeypatch.setenv("PRUNEBENCH_DATA", "/elsewhere")
    assert OmegaConf.load(path).root == "/elsewhere"
