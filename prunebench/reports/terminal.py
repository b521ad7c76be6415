"""Draws tables for a terminal, with as many columns as fit, and names those left out."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import Literal

from prunebench.reports.columns import Table

#: characters per line if there is no terminal
FILE_WIDTH = 120
#: least width of the first column; longer names wrap
LABEL = 20
#: characters between two columns
GAP = 2
#: characters left and right of a table
EDGES = 2


def rich_text(tables: Sequence[Table], *, to_file: bool = False, label: int = LABEL) -> str:
    """Returns the tables drawn one below the other; columns that do not fit are named.

    Args:
        tables: to draw.
        to_file: whether to ignore the terminal's width and styles.
        label: least width of the first column, in characters.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    # get_terminal_size honours COLUMNS even when the output is no terminal: the user set it
    width = FILE_WIDTH if to_file else shutil.get_terminal_size((FILE_WIDTH, 24)).columns
    styles = None if sys.stdout.isatty() and not to_file else False
    console = Console(width=width, force_terminal=styles, markup=False, highlight=False)
    shown = [table.first(fitting(table, width, label)) for table in tables]
    with console.capture() as capture:
        for table in shown:
            if table.title:
                console.print(Text(table.title, style="bold"))
            room = width - EDGES - sum(GAP + _width(table, i) for i in range(1, len(table.headers)))
            drawn = Drawn(
                box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False
            )
            names = labels([row[0] for row in table.rows], room)
            least = min(label, max(room, 1), max(map(len, names)))  # else headers would squeeze it
            most = max(room, 1)
            drawn.add_column(table.headers[0], min_width=least, max_width=most, overflow="fold")
            for i, header in enumerate(table.headers[1:], start=1):
                side: Literal["left", "right"] = "left" if i < table.labels else "right"
                drawn.add_column(Text(header), justify=side, min_width=_width(table, i))
            for name, cells in zip(names, table.rows, strict=True):
                drawn.add_row(*map(Text, [name, *cells[1:]]))
            console.print(drawn)
        notes = dict.fromkeys(line for table in shown for line in table.lines)
        for note in [*_left_out(tables, shown, width), *notes]:
            console.print(Text(note, style="dim"))
    return capture.get()


def fitting(table: Table, width: int, label: int = LABEL) -> int:
    """Returns how many of the table's first columns fit into `width` characters, at least two."""
    room = width - EDGES - min(label, max(len(row[0]) for row in table.rows))
    for i in range(1, len(table.headers)):
        room -= GAP + _width(table, i)
        if room < 0:
            return max(i, 2)
    return len(table.headers)


def labels(names: Sequence[str], width: int) -> list[str]:
    """Returns `names` with words longer than `width`, such as paths, cut in the middle.

    If that made two of them equal, all are returned unchanged.
    """
    cut = [" ".join(_shortened(word, width) for word in name.split(" ")) for name in names]
    return cut if len({*cut}) == len({*names}) else list(names)


def _shortened(word: str, width: int) -> str:
    if len(word) <= width or width < 3:
        return word
    head = (width - 1) // 2
    return f"{word[:head]}…{word[head + 1 - width :]}"


def _left_out(tables: Sequence[Table], shown: Sequence[Table], width: int) -> list[str]:
    pairs = zip(tables, shown, strict=True)
    gone = dict.fromkeys(header for a, b in pairs for header in a.headers[len(b.headers) :])
    text = (
        f"Left out for lack of space ({width} characters): {'; '.join(gone)} (--format "
        "markdown: all)."
    )
    return [text] if gone else []


def _width(table: Table, column: int) -> int:
    """Returns the width a column needs: its longest cell or word of the header."""
    words = [*table.headers[column].split(), *(row[column] for row in table.rows)]
    return max(len(word) for word in words)
