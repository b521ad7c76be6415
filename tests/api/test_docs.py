"""docs/api.md is correct: its snippets run, in their order."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from prunebench.measure import params
from prunebench.models import ModelSpec
from prunebench.options import option

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.mask = nn.Conv2d(8, 1, 1)

    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        return {"mask": self.mask(self.body(torch.cat([a, b], 1)))}


def test_the_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    spec = option("model", "resnet20", ModelSpec)
    model, dense = (spec.build((3, 8, 8), 10) for _ in range(2))
    images, labels = torch.randn(8, 3, 8, 8), torch.arange(8)
    names = {
        "model": model, "dense": dense, "pair": Pair(), "example": images[:1], "images": images,
        "labels": labels, "masks": torch.rand(8, 1, 8, 8),
        "loader": DataLoader(list(zip(images, labels, strict=True)), batch_size=4),
    }  # fmt: skip
    assert len(SNIPPETS) == 6
    for snippet in SNIPPETS:
        exec(snippet, names)
    small, again = names["small"], names["again"]
    assert params(small) < params(model)
    assert torch.equal(again(images), small.eval()(images))
