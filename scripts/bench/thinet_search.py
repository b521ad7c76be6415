"""Compares the time of ThiNet's searches on the Gram matrix with loops over samples.

X has m samples x C channels, correlated (a normal matrix times a random mixing one), seed 0; half
of the channels are removed. The loops do what the authors' scripts do: for `remove` a running sum
of the removed channels and one norm per candidate and step; for `omp` one coefficient and one norm
per candidate, then a fit of all kept channels by the pseudo-inverse of their normal matrix. The
authors' samples are row-major; column-major is the best case for a loop over columns. Both ways
must pick the same channels in the same order. One thread; CPU seconds, for ours the median of
several runs, Gram matrix included. numpy's BLAS uses the processor's own kernel, and then that of
an older processor (`OPENBLAS_CORETYPE`), each in a process of its own.

    python scripts/bench/thinet_search.py [--channels 512] [--samples 10000] [--repeats 5]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from result import Row, arguments, by_turns, publish
from threadpoolctl import threadpool_info

from prunebench.analysis.consumer_gram import squared
from prunebench.criteria.thinet import removal_order

ABOUT = """The loops over samples in the authors' scripts, compared with our search on the Gram
matrix (computing the matrix included). Both pick the same channels. `remove` is the first paper's
greedy removal, `omp` the second paper's orthogonal matching pursuit. The authors' samples lie in
memory row by row; column by column favours their loops. Seconds of one thread's CPU time, once for
the loops, the median of several for ours."""

Samples = NDArray[np.float64]


def samples(count: int, channels: int) -> Samples:
    """Returns correlated samples, float64 [count, channels], row-major."""
    random = np.random.default_rng(0)
    mixing = np.eye(channels) + random.standard_normal((channels, channels)) / channels**0.5
    made: Samples = random.standard_normal((count, channels)) @ mixing
    return made


def remove_loop(x: Samples, count: int) -> list[int]:
    """Returns the removed channels, found with a running sum and one norm per candidate."""
    left = list(range(x.shape[1]))
    total = np.zeros(len(x))
    removed: list[int] = []
    for _ in range(count):
        errors = []
        for channel in left:
            column = total + x[:, channel]
            errors.append(column @ column)
        chosen = left.pop(int(np.argmin(errors)))
        total += x[:, chosen]
        removed.append(chosen)
    return removed


def omp_loop(x: Samples, count: int) -> list[int]:
    """Returns the kept channels, found with one coefficient per candidate and a fit after each."""
    left = list(range(x.shape[1]))
    y = x.sum(1)
    residual = y
    kept: list[int] = []
    for _ in range(count):
        errors = []
        for channel in left:
            column = x[:, channel]
            rest = residual - (column @ residual) / (column @ column) * column
            errors.append(rest @ rest)
        kept.append(left.pop(int(np.argmin(errors))))
        chosen = x[:, kept]
        residual = y - chosen @ (np.linalg.pinv(chosen.T @ chosen) @ (chosen.T @ y))
    return kept


def ours(x: Samples, search: str) -> list[int]:
    """Returns the order of removal (remove) or of keeping (omp); computes the Gram matrix, too."""
    order = removal_order(squared(torch.from_numpy(x)), search=search)
    return order if search == "remove" else order[::-1]


def rows(asked: Namespace) -> list[Row]:
    """Times each loop once and ours several times, with the BLAS kernel of this process."""
    x = samples(asked.samples, asked.channels)
    columns = np.asfortranarray(x)
    count, found = asked.channels // 2, list[Row]()
    [kernel] = {
        one["architecture"] for one in threadpool_info() if one["prefix"] == "libscipy_openblas"
    }
    loops: list[tuple[str, str, Callable[[], list[int]]]] = [
        ("remove", "row-major", lambda: remove_loop(x, count)),
        ("remove", "column-major", lambda: remove_loop(columns, count)),
        ("omp", "row-major", lambda: omp_loop(x, count)),
        ("omp", "column-major", lambda: omp_loop(columns, count)),
    ]
    for search, layout, loop in loops:
        picked: list[list[int]] = []
        [theirs] = by_turns({"": lambda: picked.append(loop())}, 1)[""]  # noqa: B023
        mine = median(by_turns({"": lambda: ours(x, search)}, asked.repeats)[""])  # noqa: B023
        assert ours(x, search)[:count] == picked[0], "they pick different channels"
        found.append(
            {
                "search": search,
                "samples": layout,
                "BLAS kernel of numpy": kernel,
                "loop, s": theirs,
                "prunebench, s": mine,
                "times as fast": theirs / mine,
            }
        )
    return found


def in_process(kernel: str) -> list[Row]:
    """Returns the rows measured in a new process with this kernel; "" is the processor's own."""
    done = subprocess.run(
        [sys.executable, *sys.argv, "--rows"],
        env={**os.environ, "OPENBLAS_CORETYPE": kernel}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: list[Row] = json.loads(done.stdout)
    return found


def main() -> None:
    """Times all searches with both BLAS kernels."""
    parser = arguments(__doc__)
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", action="store_true", help="with the kernel of this process alone")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.rows:
        print(json.dumps(rows(asked)))
        return
    found = [row for kernel in ("", "Haswell") for row in in_process(kernel)]
    size = f"{asked.samples:,} samples, {asked.channels} channels, half of them removed"
    publish(asked, f"ThiNet's searches: {size}", ABOUT, found)


if __name__ == "__main__":
    main()
