"""Selects, orders and groups the rows and columns of a table, as its options ask."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from prunebench.errors import DataError
from prunebench.reports.columns import Table, panels, tables, tabulate
from prunebench.reports.figures import Spread
from prunebench.reports.load import Runs
from prunebench.reports.named import Column, column, columns_of, plain, rank
from prunebench.reports.rows import Row

#: a condition of --where: column, operator, value
CONDITION = re.compile(r"([\w.]+)\s*(=|<|>)\s*(.*)")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Holds the user's choice of columns and rows.

    Attributes:
        columns: names, in order; empty for the table's default columns.
        sort: a name, with ``,desc`` for the largest first; "" for the default order.
        where: conditions, all of which must hold: ``name=value,value`` (``*`` matches anything),
            ``name<number`` or ``name>number``.
        by: names; rows with equal values in them share a table.
    """

    columns: Sequence[str] = ()
    sort: str = ""
    where: Sequence[str] = ()
    by: Sequence[str] = ()

    @property
    def nothing(self) -> bool:
        """Whether the user leaves columns and rows to the table."""
        return not (self.columns or self.sort or self.where or self.by)


def picked(rows: Sequence[Row], asked: Asked) -> list[Row]:
    """Returns the rows that meet all conditions of `asked`, in its order.

    Rows without a value in the column to sort by come last.

    Raises:
        DataError: a column does not exist, a condition is malformed, or no row is left.
    """
    known = columns_of(rows)
    left = list(rows)
    for condition in asked.where:
        left = [row for row in left if _predicate(condition, known, rows)(row)]
    if not left:
        raise DataError(f"no row has {' and '.join(asked.where)}")
    if not asked.sort:
        return left
    name, _, order = asked.sort.partition(",")
    if order not in ("", "asc", "desc"):
        raise DataError(f"--sort {asked.sort}: valid: {name}, {name},asc or {name},desc")
    read = column(name, known, rows).value
    having = [row for row in left if read(row) not in (None, "")]
    having.sort(key=lambda row: rank(read(row)), reverse=order == "desc")
    return having + [row for row in left if read(row) in (None, "")]


def tables_of(rows: Sequence[Row], runs: Runs, asked: Asked, *, wide: bool) -> list[Table]:
    """Returns the tables for people that `asked` describes, with default columns if it names none.

    Args:
        rows: as picked.
        runs: for the notes on runs without a result.
        asked: the user's choice.
        wide: whether the default is one table with all columns, rather than one per network and
            data set with the most important columns first.

    Raises:
        DataError: a column does not exist.
    """
    known = columns_of(rows)
    groups = {name: column(name, known, rows) for name in asked.by}

    def title(row: Row) -> str:
        return ", ".join(f"{name} {one.text(row) or '-'}" for name, one in groups.items())

    if asked.columns:
        chosen = [column(name, known, rows) for name in asked.columns]
        words = [*(one.figures for one in chosen), True].index(True)
        cells = {one.header: one.text for one in chosen}
        return [replace(one, labels=words) for one in tables(rows, runs, cells, title)]
    if wide:
        return tabulate(rows, runs, title)
    return panels(rows, runs, title) if groups else panels(rows, runs)


def lines_of(rows: Sequence[Row], names: Sequence[str]) -> list[dict[str, object]]:
    """Returns one line of plain values per row, for CSV and JSON; "" for what is not known.

    Raises:
        DataError: a column does not exist.
    """
    known = columns_of(rows)
    reads = {name: column(name, known, rows).value for name in names}
    spreads = {
        name
        for name, read in reads.items()
        if any(isinstance(value := read(row), Spread) and value.std is not None for row in rows)
    }
    lines = []
    for row in rows:
        line: dict[str, object] = {}
        for name, read in reads.items():
            value = read(row)
            line[name] = round(value.mean, 6) if isinstance(value, Spread) else value
            if name in spreads:
                std = value.std if isinstance(value, Spread) else None
                line[f"{name}_std"] = None if std is None else round(std, 6)
        lines.append({key: "" if value is None else value for key, value in line.items()})
    return lines


def _predicate(
    condition: str, known: Mapping[str, Column], rows: Sequence[Row]
) -> Callable[[Row], bool]:
    """Returns a function that tells whether a row meets `condition`.

    Raises:
        DataError: it is malformed, or its column does not exist.
    """
    parts = CONDITION.fullmatch(condition)
    if not parts:
        raise DataError(
            f"--where {condition}: conditions read criterion=l1,fpgm or 'drop<1' or 'macs>-50'"
        )
    found, sign, wanted = column(parts[1], known, rows), parts[2], parts[3].lower()
    if sign == "=":
        return lambda row: any(
            fnmatchcase(plain(found.value(row)).lower(), value) for value in wanted.split(",")
        )
    try:
        bound = float(wanted)
    except ValueError:
        raise DataError(f"--where {condition}: {sign} takes a number") from None

    def beyond(row: Row) -> bool:
        value = found.value(row)
        try:
            number = value.mean if isinstance(value, Spread) else float(plain(value))
        except ValueError:
            return False
        return number < bound if sign == "<" else number > bound

    return beyond
