"""Plain numbers, as CSV: a line per setting, or per run for statistics of one's own."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence

from prunebench.records.identity import setting
from prunebench.reports.columns import ACCURACY, Table
from prunebench.reports.figures import Change, Spread
from prunebench.reports.rows import Row, counting, row_of


def csv_of_settings(rows: Sequence[Row]) -> str:
    """Returns a line per row, with mean and standard deviation; empty where nothing is known."""
    batches = _batches(rows)
    lines = []
    for row in rows:
        line: dict[str, object] = _names(row) | {
            "seeds": "" if row.source else row.seeds,
            "failed": "" if row.source else row.failed,
            "unfinished": "" if row.source else row.unfinished,
        }
        for name, value in _figures(row, batches).items():
            line[f"{name}_mean"] = "" if value is None else round(value.mean, 6)
            line[f"{name}_std"] = "" if value is None or value.std is None else round(value.std, 6)
        lines.append(line | _origin(row))
    return _csv(lines)


def csv_of_runs(rows: Sequence[Row]) -> str:
    """Returns a line per finished run, those too whose place a later run has taken.

    Its ``path`` and ``sha256`` say which report it is; ``setting`` is the same for runs that
    differ in nothing but the seed; ``counts`` is 0 where the same was run again later.
    """
    return _csv(list(_runs(rows)))


def csv_of_table(table: Table) -> str:
    """Returns the cells of any table."""
    return _csv([dict(zip(table.headers, row, strict=True)) for row in table.rows])


def _runs(rows: Sequence[Row]) -> Iterator[dict[str, object]]:
    batches = _batches(rows)
    for row in rows:
        last = [path for path, _ in counting(row.runs).values()]
        for path, report in row.runs:
            alone = row_of(path, report)
            figures = _figures(alone, batches).items()
            yield {
                **_names(row),
                "setting": setting(report),
                "seed": report.seed,
                "counts": int(path in last),
                "finished_at": report.finished_at,
                "path": str(path),
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                **{name: "" if value is None else round(value.mean, 6) for name, value in figures},
                **_origin(alone),
            }


def _names(row: Row) -> dict[str, object]:
    return {
        "model": row.model,
        "dataset": row.dataset,
        "method": row.method,
        "details": row.details,
    }


def _figures(row: Row, batches: Sequence[int]) -> dict[str, Spread | None]:
    """Returns name -> figure; latencies of busy machines too, with their spread behind them."""
    found = {f"{stage}_top1_percent": row.top1.get(stage) for stage in ACCURACY}
    found["drop_points"] = row.drop
    changes: Mapping[str, Change | None] = {
        "params": row.params,
        "macs": row.macs,
        "size_bytes": row.size,
        **{f"latency_ms_batch{batch}": row.latency.get(batch) for batch in batches},
    }
    for name, value in changes.items():
        known = value or Change(None, None, None)
        found[f"{name}_before"] = known.before
        found[f"{name}_after"] = known.after
        found[f"{name}_reduction_percent"] = known.reduction
    return found


def _origin(row: Row) -> dict[str, object]:
    return {
        "latency_iqr_over_median_max": round(row.restlessness, 6) if row.latency else "",
        "hardware": row.hardware,
        "convention": row.convention,
        "note": row.note,
        "source": row.source,
        "metric": row.metric,
    }


def _batches(rows: Sequence[Row]) -> list[int]:
    return sorted({batch for row in rows for batch in row.latency})


def _inert(value: object) -> object:
    """Returns a cell that no spreadsheet takes for a formula."""
    formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@"))
    return f"'{value}" if formula else value


def _csv(lines: Sequence[Mapping[str, object]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _inert(value) for key, value in line.items()} for line in lines)
    return file.getvalue()
