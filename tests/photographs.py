"""Writes small trees of image files, as users have them on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from prunebench.datasets import DatasetSpec
from prunebench.datasets.folder import Folder
from prunebench.options import option


def photograph(seed: int, width: int = 20, height: int = 16) -> Image.Image:
    """Returns a smooth coloured picture; each seed gives another one."""
    source = np.random.RandomState(seed)
    coarse = source.randint(0, 256, (4, 4, 3)).astype("uint8")
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def write_tree(
    root: Path,
    parts: dict[str, int],
    classes: tuple[str, ...] = ("cat", "dog", "eel"),
    **saving: Any,
) -> Path:
    """Writes `parts` (folder -> images per class) below `root`; returns `root`."""
    seed = 0
    for part, count in parts.items():
        for name in classes:
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                photograph(seed).save(root / part / name / f"{number}.JPEG", quality=95, **saving)
                seed += 1
    return root


def folder(path: Path, **changes: Any) -> Folder:
    """Returns the shipped ``dataset=folder`` on `path`, for 8 x 8 images, without loaders."""
    values = {"path": str(path), "image_size": 8, "workers": 0, **changes}
    made = option("dataset", "folder", DatasetSpec, **values)
    assert isinstance(made, Folder)
    return made
