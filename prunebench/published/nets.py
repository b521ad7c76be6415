"""Holds the counts of our own networks, to check published rows without torch.

``nets.json`` is written by ``scripts/reproduce/published_nets.py``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from prunebench.published.record import Figure, Published

#: tiers of trust, from weakest to strongest -> their meaning
TIERS = {
    "quoted": "quoted by others",
    "printed": "printed by the authors, or by whoever re-ran the method",
    "rebuilt": "a network of ours, cut to the published widths, has exactly these counts",
    "re-run": "a report of ours stands in outputs/reference",
}
#: id of a row -> folder of our own run of it in outputs/reference
RERUN: dict[str, str] = {}


@dataclass(frozen=True)
class Net:
    """Holds the counts of one of our networks, dense or cut, in several conventions.

    Attributes:
        run: the words that choose it on the command line.
        params: every learnable number; ``weights``: without normalisation and biases.
        macs: multiply-adds of convolution and linear layers; ``fvcore``: its own total, with
            normalisation and pooling; ``hrank``: with the biases of linear layers.
        flops_foad: what FOAD's authors count; used by no other source, so `counts` leaves it out.
    """

    run: str
    params: int
    weights: int
    macs: int
    macs_fvcore: int
    macs_hrank: int
    flops_foad: int

    def counts(self, cost: str) -> tuple[int, ...]:
        """Returns ``params`` or ``macs`` in the conventions that rows may use, ours first."""
        if cost == "params":
            return self.params, self.weights
        return self.macs, 2 * self.macs, self.macs_fvcore, self.macs_hrank

    def agrees(self, cost: str, figure: Figure) -> bool:
        """Returns whether `figure` is the count in one of the conventions, rounded."""
        return any(figure.low <= count <= figure.high for count in self.counts(cost))


@cache
def _file() -> dict[str, Any]:
    path = Path(__file__).with_name("nets.json")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def nets_of(row: Published) -> list[Net]:
    """Returns our dense networks that a row may have started from; empty if we have none."""
    return [
        Net(**{key: value for key, value in net.items() if key not in ("model", "dataset")})
        for net in _file()["nets"]
        if (net["model"], net["dataset"]) == (row.model, row.dataset)
    ]


def tier(row: Published) -> str:
    """Returns how far a row can be trusted, a key of `TIERS`."""
    if row.id in RERUN:
        return "re-run"
    if any(_counts_are_of(row, shape) for shape in _file()["shapes"].get(row.id, ())):
        return "rebuilt"
    return "quoted" if row.quoted else "printed"


def _counts_are_of(row: Published, shape: dict[str, int]) -> bool:
    """Returns whether both counts that the row prints are those of `shape`."""
    size, macs = row.figures.get("params_after"), row.figures.get("macs_after")
    if size is None or macs is None:
        return False
    sizes = (shape["params"], shape["weights"])
    return any(size.low <= n <= size.high for n in sizes) and macs.low <= shape["macs"] <= macs.high
