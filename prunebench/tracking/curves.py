"""From the rows of a metrics log to curves in percent, of each stage and of the run as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: the one axis of all curves: epochs trained since the run began, whatever the stage
AXIS = "epoch"
#: the stage whose weights are of an earlier epoch than the last: no point of the run as it went
EARLIER = "finetuned_best_val"


class Curves:
    """The curves of one run, whose rows it is given in their order."""

    def __init__(self) -> None:
        """Begins at epoch 0."""
        self._epochs = 0

    def values(self, row: Mapping[str, Any]) -> dict[str, float]:
        """Returns the next point of every curve that `row` tells of, and of `AXIS`.

        An epoch of training is a point of ``train/top1``, ``val/top1``, ``train/loss`` and ``lr``
        over the whole run, and of its stage's own curves; a network that was measured is one of
        ``test/top1`` or ``test/lfw``. What other rows hold in numbers is a curve of their stage.
        """
        stage = row["stage"]
        if "seen" not in row:
            numbers = {k: v for k, v in row.items() if type(v) in (int, float)}
            found = {f"{stage}/{key.replace('/', '_')}": value for key, value in numbers.items()}
            now = {k: v for k, v in numbers.items() if k.startswith("test/") and stage != EARLIER}
            return {AXIS: self._epochs, **found, **now}
        self._epochs += 1
        figures = {"train/top1": 100 * row["correct"] / row["seen"], "train/loss": row["loss"]}
        if row["val_seen"]:
            figures["val/top1"] = 100 * row["val_correct"] / row["val_seen"]
        figures["lr"] = row["lr"]
        of_stage = {f"{stage}/{key.replace('/', '_')}": value for key, value in figures.items()}
        told = {f"{stage}/epoch": row["epoch"], f"{stage}/seconds": row["seconds"]}
        return {AXIS: self._epochs, **figures, **of_stage, **told}
