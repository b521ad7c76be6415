"""Provides images to compare an exported network on: the run's own, or random ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from prunebench.datasets import DatasetSpec
from prunebench.errors import PrunebenchError
from prunebench.export.source import Source
from prunebench.options import component
from prunebench.training.batches import split_on


@dataclass(frozen=True)
class Images:
    """Holds images and where they come from.

    Attributes:
        values: normalised, float32 [n, C, H, W].
        origin: in words.
    """

    values: Tensor
    origin: str


def images_of(source: Source, count: int, root: Path | None = None) -> Images:
    """Returns `count` images of the run's data, or random ones if these are not available.

    Args:
        source: the network.
        count: number of images, at least 2.
        root: where the data lie, if not where the run found them.
    """
    try:
        return _run_images(source, count, root)
    except PrunebenchError as error:
        draw = torch.Generator().manual_seed(0)
        why = str(error).partition(";")[0]
        return Images(
            torch.randn(count, *source.shape, generator=draw),
            f"random images, for the data are not at hand ({why})",
        )


def _run_images(source: Source, count: int, root: Path | None) -> Images:
    """Returns images of the run's data.

    Raises:
        PrunebenchError: they are not available.
    """
    if source.report is None:
        raise PrunebenchError("no report.json beside the network says which they are")
    values = dict(source.report.config["dataset"])
    if root is not None and "root" in values:
        values["root"] = str(root)
    elif root is not None:
        values["path"] = str(root)
    values |= {"download": False} if "download" in values else {}
    spec: DatasetSpec = component("dataset", values, DatasetSpec)
    if spec.missing:
        raise PrunebenchError(spec.missing)
    data = spec.load()
    part, name = (data.test, "test") if len(data.test) else (data.train, "training")
    if data.shape != source.shape:
        raise PrunebenchError(f"they are {data.shape} and not {source.shape}")
    split = split_on(torch.device("cpu"), data, part)
    images = next(iter(split.batches(count)))[0][:count]
    return Images(images, f"{len(images)} {name} images of {data.name}")
