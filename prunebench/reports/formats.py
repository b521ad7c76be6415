"""Writes tables as Markdown and LaTeX, each with its own escapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prunebench.reports.columns import Table

MARKDOWN = {char: f"\\{char}" for char in "\\|*_`<"} | {"\n": " "}
LATEX = {char: f"\\{char}" for char in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": r"$<$",
    ">": r"$>$",
    "[": "{[}",  # after the \\ that ends a row, a bare [ would begin an argument
    "±": r"$\pm$",
    "→": r"$\to$",
    "\n": " ",
}


def markdown(table: Table) -> str:
    """Returns a GitHub-flavoured Markdown table."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(_escape(cell, MARKDOWN) for cell in cells) + " |"

    rule = ["---" if i < table.labels else "---:" for i in range(len(table.headers))]
    lines = [f"**{_escape(table.title, MARKDOWN)}**", ""] if table.title else []
    lines += [line(table.headers), "| " + " | ".join(rule) + " |", *map(line, table.rows), ""]
    lines += [f"- {_escape(note, MARKDOWN)}" for note in table.lines]
    return "\n".join(lines) + "\n"


def latex(table: Table) -> str:
    """Returns a LaTeX table, which needs the package booktabs."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(_escape(cell, LATEX) for cell in cells) + r" \\"

    text = table.labels
    align = "l" * text + "r" * (len(table.headers) - text)
    lines = [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{align}}}", r"\toprule"]
    lines += [line(table.headers), r"\midrule", *map(line, table.rows)]
    lines += [r"\bottomrule", r"\end{tabular}"]
    sentences = [table.title, *table.lines] if table.title else table.lines
    lines += [rf"\caption{{{' '.join(_escape(_sentence(line), LATEX) for line in sentences)}}}"]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _sentence(note: str) -> str:
    return note if note.endswith(".") else note + "."


def _escape(text: str, table: Mapping[str, str]) -> str:
    return text.translate({ord(char): spelt for char, spelt in table.items()})
