"""Turns the rows of a metrics log into points of curves, per stage and over the whole run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: the x axis of all curves: epochs trained since the run began, over all stages
AXIS = "epoch"
#: the stage whose weights are of an earlier epoch than the last: no point of the run as it went
EARLIER = "finetuned_best_val"


class Curves:
    """Computes the curves of one run, whose rows must be passed in order."""

    def __init__(self) -> None:
        """Starts at epoch 0."""
        self._epochs = 0

    def values(self, row: Mapping[str, Any]) -> dict[str, float]:
        """Returns name -> value of each curve with a point in `row`, and of `AXIS`.

        An epoch of training is a point of ``train/top1``, ``val/top1``, ``train/loss`` and ``lr``
        over the whole run, and of the same curves of its stage. A measured network is a point of
        ``test/top1`` or ``test/lfw``. Numbers in other rows belong to curves of their stage.
        Accuracies are in percent.
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
        progress = {f"{stage}/epoch": row["epoch"], f"{stage}/seconds": row["seconds"]}
        return {AXIS: self._epochs, **figures, **of_stage, **progress}
