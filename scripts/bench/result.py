"""Prints and writes what all benchmarks measure: rows of figures, and how they were obtained.

`--out FILE` writes them as JSON; `page.py` makes docs/benchmarks.md from the committed files.
"""

from __future__ import annotations

import gc
import json
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from time import process_time
from typing import Any

from prunebench.records.environment import environment

#: column -> value
Row = dict[str, str | int | float | None]


def arguments(doc: str) -> ArgumentParser:
    """Returns a parser with the option `--out`, described by the first line of `doc`."""
    parser = ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    return parser


def by_turns(works: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Returns the CPU seconds of each work, round by round; works alternate.

    Garbage is collected before each, so that no work pays for another's.
    """
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            gc.collect()
            start = process_time()
            work()
            found[name].append(process_time() - start)
    return found


def publish(
    asked: Namespace, title: str, about: str, rows: Sequence[Row], device: str = "cpu"
) -> None:
    """Prints the rows as a table, and writes them to the file that `--out` names.

    Args:
        asked: the parsed `arguments`.
        title: of the table.
        about: what was measured against what, and what a ratio is.
        rows: one per case; a column whose name begins with "times" is a ratio.
        device: on which the work ran.
    """
    print(f"{title}\n\n{markdown(rows)}")
    write(asked, title, about, rows, device)


def write(
    asked: Namespace, title: str, about: str, rows: Sequence[Row], device: str = "cpu"
) -> None:
    """Writes what `publish` writes, without printing."""
    if not asked.out:
        return
    # the published command must not contain folders of this machine
    words = [re.sub(r"[^\s='\"]*/", "", word) for word in sys.argv]
    if "--out" in words:
        del words[(place := words.index("--out")) : place + 2]
    told = {
        "title": title,
        "about": " ".join(about.split()),
        "command": f"python scripts/bench/{' '.join(words)}",
        "environment": environment(device),
        "rows": [{name: _rounded(value) for name, value in row.items()} for row in rows],
    }
    asked.out.write_text(json.dumps(told, indent=1) + "\n")


def markdown(rows: Sequence[Row]) -> str:
    """Returns the rows as a table."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    marks = [
        "---:" if any(isinstance(row.get(name), int | float) for row in rows) else "---"
        for name in names
    ]
    lines = [names, marks, *([_cell(name, row.get(name)) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rounded(value: Any) -> Any:
    """Returns a float with four digits, more than any measurement here justifies."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _cell(name: str, value: str | int | float | None) -> str:
    """Returns the text of a cell: three digits of a float, and an x after a ratio."""
    if value is None:
        return ""
    if isinstance(value, float):
        text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")
        return f"{text}x" if name.startswith("times") else text
    return str(value)
