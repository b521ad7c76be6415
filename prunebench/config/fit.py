"""Checks the numbers of a configuration against the data, once these are read."""

from __future__ import annotations

from collections.abc import Iterator

from prunebench.config import Run
from prunebench.datasets import Data
from prunebench.errors import require


def check_fit(run: Run, data: Data) -> Iterator[str]:
    """Yields a warning for each number that is accepted but probably unintended.

    Raises:
        ConfigError: a setting needs images that the data lack.
    """
    if run.settings.sensitivity is not None:
        require(
            len(data.val) > 0,
            "run.sensitivity is measured on validation images; set dataset.val_size",
        )
    images = len(data.train)
    pretrained = run.model.pretrained(data.classes)
    for name, phase in run.phases(pretrained=pretrained).items():
        if phase.epochs and phase.batch_size > images:
            yield (
                f"recipe.{name}.batch_size={phase.batch_size}: more than the {images:,} training "
                "images, so that an epoch is a single step"
            )
    for group, asked in (("criterion", run.criterion), ("repair", run.repair)):
        if asked.images_needed > images:
            yield (
                f"{group}: needs {asked.images_needed:,} training images; there are "
                f"{images:,}, and all are used"
            )
    given = pretrained or run.baseline.checkpoint is not None
    if run.recipe.baseline.epochs == 0 and not given:
        yield "recipe.baseline.epochs=0: an untrained network is pruned"
