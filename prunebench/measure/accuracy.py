"""Accuracy: how many images of a split a network classifies correctly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite, prod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from prunebench.channels import in_mode
from prunebench.records import Score
from prunebench.records.predictions import Predictions
from prunebench.reproducibility import cuda_math
from prunebench.training.split import Split

#: pixels per evaluation batch: 128 images of 32 x 32 on a CPU, which keeps them in its cache
#: (1.5 times as fast as 512), and 1,024 on a GPU
BATCH_PIXELS = {"cpu": 2**17, "cuda": 2**20}


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Sets eval mode, no gradients and full float32 within the block; restores the mode."""
    with in_mode(network), torch.inference_mode(), cuda_math(exact=True):
        yield


def evaluate(network: nn.Module, split: Split) -> Score:
    """Returns the score of the network on `split`; see `answers`."""
    return answers(network, split)[0]


def answers(network: nn.Module, split: Split) -> tuple[Score, Predictions]:
    """Returns the score of the network on `split`, in eval mode, and each prediction.

    An image with a logit that is not finite counts as wrong.

    Args:
        network: returns logits [n, classes]; on the split's device; its mode is restored.
        split: images and labels; images that cannot be read do not count.
    """
    pixels = BATCH_PIXELS.get(split.device.type, 2**17)
    size = max(1, pixels // prod(split.shape[1:]))
    # summed on the device and read once at the end, so that a GPU never waits
    totals = torch.zeros(2, dtype=torch.int64, device=split.device)
    loss = torch.zeros((), dtype=torch.float64, device=split.device)
    classes = seen = 0
    said: list[Tensor] = []
    with evaluating(network):
        for images, labels in split.batches(size):
            logits = network(images).float()
            classes = logits.shape[1]
            best, hits = _first_five(logits, labels)
            totals += torch.stack([hits[:, 0].sum(), hits.sum()])
            seen += len(labels)
            said.append(torch.stack([best[:, 0], hits[:, 0].long()]))
            loss += functional.cross_entropy(logits, labels, reduction="sum").double()
    top1, top5 = totals.tolist()
    mean = float(loss) / max(1, seen)
    score = Score(
        correct=top1,
        correct_top5=top5 if classes > 5 else None,
        seen=seen,
        loss=mean if isfinite(mean) else None,
    )
    top, right = torch.cat(said, 1).cpu().numpy() if said else np.empty((2, 0), dtype=np.int64)
    return score, Predictions(top1=top, correct=right.astype(bool))


def _first_five(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the five highest classes, and whether each is the label; both [n, 5]."""
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = (best == labels[:, None]) & logits.isfinite().all(1, keepdim=True)
    return best, hits
