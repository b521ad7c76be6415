"""The loss, compared with its formula."""

import math

import pytest
import torch

from prunebench.training.losses import cross_entropy


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothed_cross_entropy_is_the_formula(smoothing: float) -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]], dtype=torch.float64)
    labels = torch.tensor([2, 1])
    expected = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        norm = math.log(sum(math.exp(value) for value in row))
        for k, value in enumerate(row):
            target = (1 - smoothing) * (k == label) + smoothing / 3
            expected -= target * (value - norm) / 2
    got = cross_entropy(logits, labels, smoothing=smoothing)
    assert float(got) == pytest.approx(expected, rel=1e-12)


def test_bfloat16_logits_are_summed_in_float32() -> None:
    logits = torch.randn(64, 10, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = torch.arange(64) % 10
    got = cross_entropy(logits, labels, smoothing=0.0)
    assert got.dtype == torch.float32
    assert torch.equal(got, cross_entropy(logits.float(), labels, smoothing=0.0))
