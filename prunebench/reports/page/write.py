"""Writes the page's file: markup, style, libraries and data in one.

The data are compressed and base64-encoded, so that nothing in a record can act as markup.
"""

from __future__ import annotations

import gzip
import html
import json
import os
from base64 import b64encode
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from prunebench.errors import DataError, require
from prunebench.records.jsonfile import plain
from prunebench.reports.load import load_runs
from prunebench.reports.page.content import content, titles

ASSETS = files("prunebench.reports.page") / "assets"
SCRIPTS = ("vendor/tabulator.min.js", "vendor/chart.umd.min.js")
STYLES = ("vendor/tabulator_simple.min.css", "page.css")
#: our own scripts; each uses those before it
OWN = ("figures.js", "table.js", "charts.js", "detail.js", "page.js")
LICENCES = ("vendor/LICENSE-tabulator", "vendor/LICENSE-chart.js")


def page(runs: Sequence[str | os.PathLike[str]], path: Path) -> None:
    """Writes the page of all runs at the paths `runs` to `path`.

    Raises:
        ConfigError: `path` does not end in .html.
        DataError: there is no run, or the file cannot be written.
    """
    require(path.suffix in (".html", ".htm"), f"-o {path}: a page is an .html")
    text = rendered(runs)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"-o {path} cannot be written ({error.strerror})") from None


def rendered(runs: Sequence[str | os.PathLike[str]]) -> str:
    """Returns the page as HTML."""
    shown = content(load_runs(runs))
    title = titles(shown["rows"])
    packed = gzip.compress(json.dumps(plain(shown), separators=(",", ":")).encode(), mtime=0)
    parts = {
        "TITLE": html.escape(f"prunebench: {title}"),
        "VERSION": html.escape(version("prunebench")),
        "LICENCES": html.escape("\n".join(_asset(name) for name in LICENCES)),
        "STYLE": "\n".join(_asset(name) for name in STYLES),
        "SCRIPTS": "\n".join(f"<script>\n{_asset(name)}\n</script>" for name in SCRIPTS),
        "OWN": '"use strict";\n' + "\n".join(_asset(name) for name in OWN),
        "DATA": b64encode(packed).decode(),
    }
    head, *pieces = _asset("page.html").split("{{")
    filled = [head]
    for piece in pieces:
        name, _, rest = piece.partition("}}")
        filled += [parts[name], rest]
    return "".join(filled)


def _asset(name: str) -> str:
    """Returns an asset's text without source map references, whose files the page lacks."""
    text = ASSETS.joinpath(name).read_text(encoding="utf-8")
    return "\n".join(line for line in text.splitlines() if "# sourceMappingURL=" not in line)
