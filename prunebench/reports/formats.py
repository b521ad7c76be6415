"""The table as Markdown, LaTeX, CSV, or drawn for a terminal; each escapes for its format."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace

from prunebench.reports.cells import ACCURACY, Table
from prunebench.reports.rows import Change, Row, Spread

#: characters per line of the first column on a terminal; longer names go on below
MAX_LABEL = 30
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

    rule = ["---" if i < table.labels else "---:" for i in range(len(table.headers))]
    lines = [line(table.headers), "| " + " | ".join(rule) + " |", *map(line, table.rows), ""]
    lines += [f"- {_escape(note, MARKDOWN)}" for note in table.notes]
    return "\n".join(lines) + "\n"


def latex(table: Table) -> str:
    """Returns a LaTeX table that needs no package."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(_escape(cell, LATEX) for cell in cells) + r" \\"

    text = table.labels
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


def rich_text(tables: Sequence[Table], *, width: int | None, terminal: bool | None) -> str:
    """Returns the tables drawn for a terminal; brackets in names are shown as they are.

    Args:
        tables: to draw, one below the other.
        width: in characters; None = the terminal's.
        terminal: whether to use styles; None = if standard output is a terminal.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    console = Console(width=width, force_terminal=terminal, markup=False, highlight=False)
    with console.capture() as capture:
        for table in tables:
            if table.title:
                console.print(Text(table.title, style="bold"))
            for part in _fitting(table, console.width):
                drawn = Drawn(box=box.SIMPLE_HEAD, pad_edge=False)
                drawn.add_column(part.headers[0], max_width=_label_width(part))
                for i, header in enumerate(part.headers[1:], start=1):
                    drawn.add_column(Text(header), justify="right", min_width=_width(part, i))
                for cells in part.rows:
                    drawn.add_row(*map(Text, cells))
                console.print(drawn)
            for note in table.notes:
                console.print(Text(note, style="dim"))
    return capture.get()


def _sentence(note: str) -> str:
    return note if note.endswith(".") else note + "."


def _fitting(table: Table, width: int) -> list[Table]:
    """Returns `table` in parts no wider than `width`, each with the rows it has figures for."""
    parts: list[list[int]] = []
    left = 0
    for i in range(1, len(table.headers)):
        needed = 3 + _width(table, i)  # 3 = padding
        if needed > left:
            parts.append([0])
            left = width - _label_width(table) - 3
        parts[-1].append(i)
        left -= needed
    return [
        replace(
            table,
            headers=[table.headers[i] for i in part],
            rows=[[row[i] for i in part] for row in table.rows if any(row[i] for i in part[1:])],
        )
        for part in parts
    ]


def _width(table: Table, column: int) -> int:
    words = [*table.headers[column].split(), *(row[column] for row in table.rows)]
    return max(len(word) for word in words)


def _label_width(table: Table) -> int:
    return min(MAX_LABEL, max(len(row[0]) for row in table.rows))


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
