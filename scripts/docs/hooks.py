"""Extends `mkdocs build`: tables of options from their YAML, and committed files as pages.

A page contains ``<!-- options: criterion/foad repair/none -->`` where it wants a table of the keys
of these options. Files outside of ``docs/`` that a page links to become pages or files of the site.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
MARK = re.compile(r"<!-- options: (.*?) -->")
#: pages of the repository's root, which link to docs/
AT_ROOT = {"README.md": "readme.md", "CHANGELOG.md": "changelog.md"}
#: a link that leads out of docs/, from a page there or from README
OUTSIDE = re.compile(r"\]\((?:\.\./)*((?:outputs/|scripts/|README|CHANGELOG)[^)#]*)")
#: a key of a YAML with its value and comment
KEY = re.compile(r"^(?P<key>\w+):\s*(?P<value>[^#]*?)\s*(?:#\s*(?P<text>.*))?$")


def on_files(files: Files, config: Any) -> Files:
    """Adds the files outside of ``docs/`` that pages link to."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    wanted = {link for page in pages for link in outside(page.read_text())}
    for link in sorted(wanted):
        if (ROOT / link).is_file():
            text = (ROOT / link).read_bytes()
            files.append(File.generated(config, placed(link), content=text))
        else:
            files.append(File.generated(config, placed(link), content=listing(ROOT / link)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Returns a page with its tables of options, and its links changed for the site."""
    depth = page.file.src_uri.count("/")
    up = "../" * depth
    at_root = page.file.src_uri in AT_ROOT.values()
    inside = markdown.replace("](docs/", "](") if at_root else markdown
    text = OUTSIDE.sub(lambda found: f"]({up}{placed(found[1])}", inside)
    return MARK.sub(lambda found: options(found[1].split()), text)


def outside(text: str) -> set[str]:
    """Returns the links of a page to files outside of ``docs/``, relative to the root."""
    return {found.rstrip("/") for found in OUTSIDE.findall(text)}


def placed(link: str) -> str:
    """Returns the path in the site of a file or folder of the repository."""
    link = link.rstrip("/")
    if link in AT_ROOT:
        return AT_ROOT[link]
    if (ROOT / link).is_dir():
        return f"files/{link}/contents.md"
    return f"files/{link}"


def listing(folder: Path) -> str:
    """Returns a page that lists the files of a folder; for Python, with their first lines."""
    lines = [f"# {folder.relative_to(ROOT)}", ""]
    for path in sorted(folder.iterdir()):
        if path.suffix == ".py":
            said = path.read_text().partition("\n")[0].strip('"')
            lines.append(f"- `{path.name}`: {said}")
        elif path.is_file():
            lines.append(f"- `{path.name}`")
    return "\n".join(lines) + "\n"


def options(names: list[str]) -> str:
    """Returns a table of the keys of options (``criterion/foad``), as their YAML explains them."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for name in names:
        group = name.partition("/")[0]
        for key, value, text in keys(ROOT / "conf" / f"{name}.yaml"):
            lines.append(f"| `{group}.{key}` | `{value}` | {text} |")
    return "\n".join(lines)


def keys(path: Path) -> list[tuple[str, str, str]]:
    """Returns (key, value, comment) of the keys at the top level of a YAML."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        match = KEY.match(line)
        if match and match["key"] not in ("_target_", "defaults"):
            text = (match["text"] or "").replace("|", r"\|").replace("*", r"\*")
            found.append((match["key"], match["value"] or "...", text))
    return found
