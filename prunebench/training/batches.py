"""Chooses the form of a split that serves the images of a data set."""

from __future__ import annotations

import torch

from prunebench.datasets import Data, Images
from prunebench.datasets.stream import Stream
from prunebench.training.resident import ResidentSplit
from prunebench.training.split import Split
from prunebench.training.streamed import StreamedSplit


def split_on(
    device: torch.device, data: Data, images: Images, *, channels_last: bool = False
) -> Split:
    """Returns `images`, one of the splits of `data`, as a `Split` with batches on `device`."""
    if isinstance(images, Stream):
        return StreamedSplit(data, images, device=device, channels_last=channels_last)
    return ResidentSplit(data, images, device=device, channels_last=channels_last)
