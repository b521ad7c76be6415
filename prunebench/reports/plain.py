"""Writes plain values as CSV or JSON, with one line per setting or per run."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence

from prunebench.records.identity import setting
from prunebench.reports.columns import Table
from prunebench.reports.figures import Change, Spread
from prunebench.reports.named import ACCURACY
from prunebench.reports.rows import Row, counting, row_of

#: column -> value; "" if not known
Line = dict[str, object]


def of_settings(rows: Sequence[Row]) -> list[Line]:
    """Returns a line per row, with means and standard deviations."""
    batches = _batches(rows)
    lines = []
    for row in rows:
        line: Line = _names(row) | {
            "seeds": "" if row.source else row.seeds,
            "failed": "" if row.source else row.failed,
            "unfinished": "" if row.source else row.unfinished,
        }
        for name, value in _figures(row, batches).items():
            line[f"{name}_mean"] = "" if value is None else round(value.mean, 6)
            line[f"{name}_std"] = "" if value is None or value.std is None else round(value.std, 6)
        lines.append(line | _origin(row))
    return lines


def of_runs(rows: Sequence[Row]) -> Iterator[Line]:
    """Yields a line per finished run, including those that a later run with the same seed replaces.

    ``path`` and ``sha256`` identify the report; ``setting`` is the same for runs that differ only
    in the seed; ``counts`` is 0 for a run that was repeated later.
    """
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


def of_table(table: Table) -> list[Line]:
    """Returns the rows of any table as lines."""
    return [dict(zip(table.headers, row, strict=True)) for row in table.rows]


def as_csv(lines: Sequence[Line]) -> str:
    """Returns the lines as CSV; unknown values are empty."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _no_formula(value) for key, value in line.items()} for line in lines)
    return file.getvalue()


def as_json(lines: Sequence[Line]) -> str:
    """Returns the lines as a JSON list of objects; unknown values are null."""
    found = [{key: None if value == "" else value for key, value in one.items()} for one in lines]
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _names(row: Row) -> Line:
    return {
        "model": row.model,
        "dataset": row.dataset,
        "method": row.method,
        "details": row.details,
    }


def _figures(row: Row, batches: Sequence[int]) -> dict[str, Spread | None]:
    """Returns name -> figure; latencies from busy machines are included."""
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


def _origin(row: Row) -> Line:
    return {
        "latency_iqr_over_median_max": round(row.restlessness, 6) if row.latency else "",
        "hardware": row.hardware,
        "convention": row.convention,
        "note": row.note,
        "source": row.source,
        "metric": row.metric,
        "control": row.control,
    }


def _batches(rows: Sequence[Row]) -> list[int]:
    return sorted({batch for row in rows for batch in row.latency})


def _no_formula(value: object) -> object:
    """Returns `value` so that a spreadsheet does not take it for a formula."""
    formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@"))
    return f"'{value}" if formula else value
