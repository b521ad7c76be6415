"""A network too large for any machine is refused before memory is allocated."""

import pytest
import torch

from prunebench.errors import ConfigError
from prunebench.models import ModelSpec, rationed
from prunebench.options import option


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [("vgg16", "width", 1e6), ("resnet20", "width", 1e6), ("mlp_512_512", "widths", [10**6] * 2)],
)
def test_what_is_typed_too_large_is_refused(monkeypatch, name, key, value):
    filled = []
    monkeypatch.setattr(
        torch.Tensor, "uniform_", lambda self, *a, **k: filled.append(self.device.type) or self
    )
    spec = option("model", name, ModelSpec, **{key: value})
    with pytest.raises(ConfigError, match=rf"^model={name} describes a network of more than"):
        rationed.build(spec, (3, 16, 16), 10, source=f"model={name}")
    assert "cpu" not in filled


def test_to_ask_first_draws_no_number():
    spec = option("model", "vgg16", ModelSpec, width=0.125)
    torch.manual_seed(0)
    plain = spec.build((3, 16, 16), 10).state_dict()
    torch.manual_seed(0)
    asked = rationed.build(spec, (3, 16, 16), 10, source="model=vgg16").state_dict()
    assert all(torch.equal(value, asked[name]) for name, value in plain.items())


def test_a_run_says_so_in_one_line(prunebench):
    done = prunebench(
        "model=vgg16", "model.width=1e6", "dataset=digits", "criterion=l1", "budget=macs"
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and done.stderr.endswith("GB: it is not built\n")
