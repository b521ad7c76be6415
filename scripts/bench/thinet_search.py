"""ThiNet's searches on the Gram matrix against the loops over samples, in one process, one thread.

X is m samples x C channels, correlated (a normal matrix times a random mixing one), seed 0; half
of the channels are removed. The loops do what the authors' scripts do: for `remove` a running sum
of the removed channels and one norm per candidate and step; for `omp` one coefficient and one norm
per candidate, then a fit of all kept channels by the pseudo-inverse of their normal matrix. Their
samples are row-major; column-major is the kindest case for a loop over columns. Both must pick the
same channels in the same order. Prints CPU seconds (process time): of ours the least of several
runs, the Gram matrix included.

    python scripts/bench/thinet_search.py [--channels 512] [--samples 10000] [--repeats 5]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import process_time

import numpy as np
import torch
from numpy.typing import NDArray

from prunebench.analysis.consumer_gram import squared
from prunebench.criteria.thinet import removal_order

Samples = NDArray[np.float64]


def samples(count: int, channels: int) -> Samples:
    """Returns correlated samples, float64 [count, channels], row-major."""
    random = np.random.default_rng(0)
    mixing = np.eye(channels) + random.standard_normal((channels, channels)) / channels**0.5
    made: Samples = random.standard_normal((count, channels)) @ mixing
    return made


def remove_loop(x: Samples, count: int) -> list[int]:
    """Returns the removed channels: a running sum, one norm per candidate."""
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
    """Returns the kept channels: one coefficient per candidate, then all fitted anew."""
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
    """Returns the order of removal (remove) or of keeping (omp), Gram matrix included."""
    order = removal_order(squared(torch.from_numpy(x)), search=search)
    return order if search == "remove" else order[::-1]


def seconds(work: Callable[[], list[int]]) -> tuple[float, list[int]]:
    """Returns the CPU seconds that `work` takes, and its result."""
    start = process_time()
    found = work()
    return process_time() - start, found


def main() -> None:
    """Times each loop once and ours several times; prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    x = samples(options.samples, options.channels)
    columns = np.asfortranarray(x)
    count = options.channels // 2
    print(f"{options.samples} samples x {options.channels} channels, half removed; CPU seconds")
    loops: list[tuple[str, str, Callable[[], list[int]]]] = [
        ("remove", "running sum, row-major", lambda: remove_loop(x, count)),
        ("remove", "running sum, column-major", lambda: remove_loop(columns, count)),
        ("omp", "all fitted anew, row-major", lambda: omp_loop(x, count)),
        ("omp", "all fitted anew, column-major", lambda: omp_loop(columns, count)),
    ]
    for search, name, loop in loops:
        runs = [seconds(lambda search=search: ours(x, search)) for _ in range(options.repeats)]  # type: ignore[misc]
        least = min(took for took, _ in runs)
        took, expected = seconds(loop)
        assert runs[0][1][:count] == expected, "they pick different channels"
        print(f"{search:7}{name:33}{took:9.2f}   prunebench {least:7.4f}   {took / least:7.0f}x")


if __name__ == "__main__":
    main()
