"""The environment that is recorded with every result."""

import json
from pathlib import Path

import torch

import prunebench
from prunebench.records.environment import environment


def test_the_environment_is_plain_and_complete() -> None:
    found = json.loads(json.dumps(environment()))
    assert list(found) == [
        "python", "torch", "torchvision", "prunebench", "platform", "device", "threads",
        "commit", "dirty",
    ]  # fmt: skip
    assert found["torch"] == torch.__version__
    assert found["prunebench"] in (prunebench.__version__, None)
    assert found["device"]
    checkout = (Path(prunebench.__file__).parents[1] / ".git").exists()
    assert len(found["commit"] or "") == (40 if checkout else 0)
