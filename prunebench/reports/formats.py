"""The table as Markdown, LaTeX, CSV, or drawn for a terminal; each escapes for its format."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from prunebench.reports.cells import ACCURACY, Table
from prunebench.reports.rows import Change, Row, Spread

MARKDOWN = {char: f"\\{char}" for char in "\\|*_`<"} | {"\n": " "}
LATEX = {char: f"\\{char}" for char in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "[": "{[}",  # at the start of a line it would be an argument of the line break before
    "±": r"$\pm$",
    "→": r"$\to$",
    "\n": " ",
}


def markdown(table: Table) -> str:
    """Returns a GitHub-flavoured Markdown table."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(_escape(cell, MARKDOWN) for cell in cells) + " |"

    rule = ["---" if i < _text_columns(table) else "---:" for i in range(len(table.headers))]
    lines = [line(table.headers), "| " + " | ".join(rule) + " |", *map(line, table.rows), ""]
    lines += [f"{_escape(note, MARKDOWN)}  " for note in table.notes]
    return "\n".join(lines) + "\n"


def latex(table: Table) -> str:
    """Returns a LaTeX table that needs no package."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(_escape(cell, LATEX) for cell in cells) + r" \\"

    text = _text_columns(table)
    align = "l" * text + "r" * (len(table.headers) - text)
    lines = [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{align}}}", r"\hline"]
    lines += [line(table.headers), r"\hline", *map(line, table.rows), r"\hline", r"\end{tabular}"]
    lines += [rf"\caption{{{' '.join(_escape(_sentence(note), LATEX) for note in table.notes)}}}"]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def csv_text(rows: Sequence[Row]) -> str:
    """Returns one line of plain numbers per row; empty where nothing is known."""
    batches = sorted({batch for row in rows for batch in row.latency})
    lines = [_numbers(row, batches) for row in rows]
    file = io.StringIO()
    writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def rich_text(table: Table, *, width: int | None = None, terminal: bool | None = None) -> str:
    """Returns the table drawn for a terminal; brackets in names are shown as they are.

    Args:
        table: to draw.
        width: in characters; None = the terminal's.
        terminal: whether to use colour; None = if standard output is one.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    drawn = Drawn(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, header in enumerate(table.headers):
        side = "left" if i < _text_columns(table) else "right"
        drawn.add_column(Text(header), justify=side, overflow="fold")  # type: ignore[arg-type]
    for cells in table.rows:
        drawn.add_row(*map(Text, cells))
    console = Console(width=width, force_terminal=terminal, markup=False, highlight=False)
    with console.capture() as capture:
        console.print(drawn)
        for note in table.notes:
            console.print(note, style="dim")
    return capture.get()


def _sentence(note: str) -> str:
    return note if note.endswith(".") else note + "."


def _text_columns(table: Table) -> int:
    return sum(header in ("model", "dataset", "method") for header in table.headers) or 1


def _escape(text: str, table: Mapping[str, str]) -> str:
    return text.translate({ord(char): spelt for char, spelt in table.items()})


def _numbers(row: Row, batches: Sequence[int]) -> dict[str, object]:
    line: dict[str, object] = {
        "model": row.model,
        "dataset": row.dataset,
        "method": row.method,
        "details": row.details,
        "seeds": "" if row.source else row.seeds,
        "failed": "" if row.source else row.failed,
    }

    def put(name: str, value: Spread | None) -> None:
        line[f"{name}_mean"] = "" if value is None else round(value.mean, 6)
        line[f"{name}_std"] = "" if value is None or value.std is None else round(value.std, 6)

    for stage in ACCURACY:
        put(f"{stage}_top1_percent", row.top1.get(stage))
    put("drop_points", row.drop)
    changes: dict[str, Change | None] = {
        "params": row.params,
        "macs": row.macs,
        "size_bytes": row.size,
    }
    changes |= {f"latency_ms_batch{batch}": row.latency.get(batch) for batch in batches}
    for name, value in changes.items():
        known = value or Change(None, None, None)
        put(f"{name}_before", known.before)
        put(f"{name}_after", known.after)
        put(f"{name}_reduction_percent", known.reduction)
    line |= {"hardware": row.hardware, "convention": row.convention}
    return line | {"note": row.note, "source": row.source}
