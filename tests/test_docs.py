"""The site of docs/: every page is in the menu, its Python runs, its tables match the YAMLs."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
import yaml

from prunebench.measure import params
from prunebench.models import ModelSpec
from prunebench.options import option
from tests.reports.browser import Browser, missing

ROOT = Path(__file__).resolve().parents[1]
MENU = (ROOT / "mkdocs.yml").read_text()
BENCH = ROOT / "scripts" / "bench"
FIGURES = ROOT / "outputs" / "reference" / "benchmarks"
#: columns of which each row of a benchmark has one
RATIO = {"times as fast", "times the time", "correlation"}


def pages():
    return {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}


def page(name):
    return (ROOT / "docs" / f"{name}.md").read_text()


@pytest.fixture
def hooks():
    if find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed")
    spec = spec_from_file_location("hooks", ROOT / "scripts" / "docs" / "hooks.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_menu_has_every_page():
    named = set(re.findall(r"[\w/]+\.md", MENU.partition("nav:")[2].partition("nav:")[2]))
    assert named == pages()


def test_every_method_of_the_menu_has_what_it_promises():
    for page in (ROOT / "docs" / "methods").glob("*.md"):
        text = page.read_text()
        for part in ("What it does", "Formula", "How to run it", "Options", "What we measured"):
            assert f"**{part}" in text, page.name
        assert "**What differs from the paper" in text
        for name in re.search(r"<!-- options: (.*) -->", text)[1].split():
            assert (ROOT / "conf" / f"{name}.yaml").exists()


def test_what_was_measured_stands_in_the_table_behind_it():
    found = []
    for page in (ROOT / "docs" / "methods").glob("*.md"):
        measured = page.read_text().partition("**What we measured")[2]
        texts, links = re.split(r"\]\([^)]*\)", measured), re.findall(r"\]\(([^)]*)\)", measured)
        for text, link in zip(texts, links, strict=False):
            if "/outputs/reference/" in link:
                table = (page.parent / link).read_text()
                numbers = re.findall(r"\d+\.\d+(?: ± \d+\.\d+)?", text)
                found += numbers
                assert [number for number in numbers if number not in table] == [], page.name
    assert len(found) > 30


def test_a_table_of_options_has_every_key_with_its_comment(hooks):
    table = hooks.options(["criterion/foad"])
    values = yaml.safe_load((ROOT / "conf" / "criterion" / "foad.yaml").read_text())
    rows = [line for line in table.splitlines() if line.startswith("| `criterion.")]
    assert len(rows) == len(values) - 1  # _target_ is no option
    assert "| `criterion.t` | `1` | channels one kept channel may remove |" in rows
    assert all(len(row.split("|")[3].strip()) > 3 or "chunk" in row for row in rows)


def test_links_out_of_docs_lead_to_pages_of_the_site(hooks):
    text = "[a](../../README.md#b), [c](../outputs/reference/x/table.md) [d](e.md)"
    assert hooks.outside(text) == {"README.md", "outputs/reference/x/table.md"}
    assert hooks.placed("README.md") == "readme.md"
    assert hooks.placed("scripts/examples") == "files/scripts/examples/contents.md"


def test_the_python_for_those_from_torch_pruning_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = option("model", "resnet20", ModelSpec).build((3, 8, 8), 10).eval()
    text = (ROOT / "docs" / "torch_pruning.md").read_text()
    names = {"model": model, "example": torch.randn(1, 3, 8, 8)}
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, names)
    assert params(names["again"]) == params(names["small"]) < params(model)


def test_the_benchmarks_are_the_committed_figures(torch_free, tmp_path):
    done = torch_free.run(str(BENCH / "page.py"), "--check", cwd=tmp_path)
    assert done.returncode == 0, f"python scripts/bench/page.py is due: {done.stderr}"
    commands = re.findall(r"^`python (scripts/bench/\w+\.py)", page("benchmarks"), re.MULTILINE)
    assert {f"scripts/bench/{path.name}" for path in BENCH.glob("*.py")} > {*commands}
    assert len(commands) == page("benchmarks").count("\n### ") > 5


@pytest.mark.parametrize("path", sorted(FIGURES.glob("*.json")), ids=lambda path: path.stem)
def test_each_benchmark_has_ratios_and_says_where_it_was_measured(path):
    told = json.loads(path.read_text())
    assert {"title", "about", "command", "environment", "rows"} == told.keys()
    assert told["environment"].keys() >= {"device", "threads", "torch", "commit"}
    assert "/tmp" not in path.read_text()
    for row in told["rows"]:
        assert RATIO & {name.partition(",")[0] for name in row}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site as ``make docs`` builds it."""
    if find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_site_builds_and_its_links_lead_somewhere(site):
    foad = (site / "methods" / "foad.html").read_text()
    assert "<code>criterion.t</code>" in foad
    for page in site.rglob("*.html"):
        fetched = re.findall(r'(?:src|href)="(https?://[^"]+)"', page.read_text())
        links = re.findall(r'<a [^>]*href="(https?://[^"]+)"', page.read_text())
        assert {*fetched} <= {*links}, page  # links may lead out; nothing is fetched


@pytest.mark.slow
def test_the_index_of_the_search_is_a_script_that_pages_can_load_from_disk(site):
    text = (site / "search" / "search_index.js").read_text()
    index = json.loads(text.removeprefix("var __index = "))
    assert "options.html" in {entry["location"] for entry in index["docs"]}
    for page in ("index.html", "methods/foad.html"):
        shim = re.search(r'<script src="([^"]*iframe-worker.js)"', (site / page).read_text())[1]
        assert (site / page).parent.joinpath(shim).is_file()


@pytest.mark.slow
@pytest.mark.skipif(bool(missing()), reason=f"not installed: {missing()}")
def test_the_search_finds_from_disk_and_asks_for_nothing(site):
    with Browser() as browser:
        browser.open(site / "methods" / "foad.html")
        browser.wait("document.querySelector('iframe')")  # in which the search works
        browser.click(".md-search__input")
        browser.type(".md-search__input", "divisor")
        browser.wait("document.querySelector('.md-search-result__link')")
        found = browser.script(
            "return [...document.querySelectorAll('.md-search-result__link')].map(a => a.href)"
        )
        for page in ("options", "export"):  # which has the word in budget.divisor=8 alone
            assert any(f"/{page}.html" in link for link in found)
        assert not [line for line in browser.logged("browser") if line["level"] == "SEVERE"]
        assert {url.partition(":")[0] for url in browser.requests()} <= {"file", "data"}
