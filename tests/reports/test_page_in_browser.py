"""The page in a real browser sorts, filters and opens a run, without any request."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from prunebench.records import write_json
from prunebench.reports.load import load_runs
from prunebench.reports.page.write import page
from tests.reports.browser import Browser, missing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=f"not installed: {missing()}"),
]
REFERENCE = Path(__file__).resolve().parents[2] / "outputs" / "reference"
READY = "document.documentElement.dataset.ready"
#: texts of the first cells of the rows on screen
NAMES = (
    "return [...document.querySelectorAll('#table .tabulator-row .name')].map(n => n.textContent)"
)
HOSTILE = '<img src=x onerror="document.title=1">'


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """A page of 300 runs with their courses: 30 methods, ten seeds each, one with a foul name."""
    folder = tmp_path_factory.mktemp("many")
    sample = load_runs([REFERENCE / "foad_resnet20"]).reports[0][1]
    for number in range(300):
        place = folder / f"{number}"
        place.mkdir()
        criterion = f"c{number // 10:02d}" if number >= 10 else f"c00{HOSTILE}"
        choices = sample.choices | {"criterion": criterion, "method": "None"}
        measured = [
            replace(one, test=replace(one.test, correct=one.test.correct - 7 * (number % 100)))
            for one in sample.measurements
        ]
        run = replace(sample, seed=number % 10, choices=choices, measurements=measured)
        write_json(place / "report.json", run)
        rows = [
            {"stage": stage, "epochs": 100, "epoch": epoch, "lr": 0.1, "loss": 1.0, "seconds": 1.0,
             "correct": 9 * epoch + number, "seen": 1500, "val_correct": epoch, "val_seen": 99}
            for stage in ("baseline", "finetune") for epoch in range(1, 101)
        ]  # fmt: skip
        rows.insert(100, {"stage": "prune-oneshot", "surgery_error": 0.0})
        (place / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    page([folder], folder / "runs.html")
    return folder / "runs.html"


@pytest.fixture
def browser(many):
    with Browser() as opened:
        opened.open(many)
        opened.wait(READY)
        yield opened
        assert [line for line in opened.logged("browser") if line["level"] != "DEBUG"] == []
        assert {url.partition(":")[0] for url in opened.requests()} <= {"file", "data"}


def test_300_runs_are_under_2_mb_and_a_second(many, browser):
    assert many.stat().st_size < 2_000_000
    assert browser.cpu_seconds(many, READY) < 1.0
    assert browser.script("return document.getElementById('summary').textContent").startswith(
        "30 settings, 300 runs"
    )


def test_it_sorts_by_click_and_by_key(browser):
    header = "#table .tabulator-col[tabulator-field='drop']"
    column = (
        "return [...document.querySelectorAll(\"#table .tabulator-row [tabulator-field='drop']\")]"
    )
    values = f"{column}.map(n => parseFloat(n.textContent)).filter(n => !isNaN(n))"
    browser.click(f"{header} .sort")
    rising = browser.script(values)
    assert rising == sorted(rising) and len({*rising}) > 1
    browser.script(f'document.querySelector("{header} .sort").focus()')
    browser.press("\ue007")
    falling = browser.script(values)
    assert falling == sorted(falling, reverse=True)


def test_it_filters_and_hides(browser):
    browser.type("#search", "c07")
    browser.wait("document.getElementById('shown').textContent.startsWith('1 of')")
    assert browser.script(NAMES) == ["c07, own, recipe short"]
    browser.script("document.querySelector('#columns').open = true")
    browser.script("""[...document.querySelectorAll('#columns label')].find(
        label => label.textContent.trim() === 'drop').click()""")  # fmt: skip
    assert not browser.script("""return Boolean(document.querySelector(
        "#table .tabulator-col[tabulator-field='drop']").offsetParent)""")  # fmt: skip


def test_published_rows_go_by_tier(browser):
    shown = "return document.getElementById('shown').textContent"
    before = browser.script(shown)
    browser.click("#tiers input")
    browser.wait(f"document.getElementById('shown').textContent !== {json.dumps(before)}")
    assert int(browser.script(shown).split()[0]) < int(before.split()[0])


def test_a_run_opens_by_key_and_closes(browser):
    browser.script("document.querySelector('#table .tabulator-row:not(.published) .name').focus()")
    browser.press("\ue007")
    assert browser.script("return document.activeElement.id") == "detail-title"
    text = browser.script("return document.getElementById('facts').textContent")
    assert "the output of the network" in text and "criterion.t" in text and "AMD EPYC" in text
    assert browser.script("return document.querySelectorAll('#seed option').length") == 10
    assert browser.script("return Boolean(Chart.getChart(document.querySelector('#facts canvas')))")
    browser.press("\ue00c")
    assert browser.script("return document.getElementById('detail').hidden")


def test_a_point_opens_its_run(browser):
    x, y = browser.script("""const chart = Chart.getChart('pareto');
        const box = chart.canvas.getBoundingClientRect();
        const spot = chart.getDatasetMeta(1).data[0];
        return [box.x + spot.x, box.y + spot.y]""")  # fmt: skip
    browser.click_at(x, y)
    browser.wait("!document.getElementById('detail').hidden")
    title = browser.script("return document.getElementById('detail-title').textContent")
    assert "resnet20 on cifar10" in title


def test_the_legend_names_all_points_and_a_press_hides_them(browser):
    names = "[...document.querySelectorAll('#legend button')].map(b => b.textContent.slice(2))"
    drawn = "Chart.getChart('pareto').data.datasets.map(set => set.label)"
    assert browser.script(f"return {names}") == browser.script(f"return {drawn}")
    assert len(browser.script(f"return {names}")) > 30  # a method each, the front, the dense one
    shown = "return Chart.getChart('pareto').isDatasetVisible(1)"
    assert browser.script(shown)
    browser.click("#legend li:nth-child(2) button")
    assert not browser.script(shown)


def test_a_foul_name_stays_text(browser):
    browser.type("#search", "onerror")
    browser.wait("document.getElementById('shown').textContent.startsWith('1 of')")
    assert browser.script("return document.images.length") == 0
    assert HOSTILE in browser.script(NAMES)[0]
    browser.click("#table .name")
    assert HOSTILE in browser.script("return document.getElementById('detail-title').textContent")
    assert browser.script("return document.images.length") == 0
    assert browser.script("return document.title").startswith("prunebench")


def test_all_rows_that_pass_the_filters_are_printed(browser):
    browser.type("#search", "resnet20")
    browser.wait("document.getElementById('shown').textContent.includes(' of ')")
    shown = int(browser.script("return document.getElementById('shown').textContent").split()[0])
    browser.script("dispatchEvent(new Event('beforeprint'))")
    rows = "return document.querySelectorAll('.tabulator-print-table tbody tr').length"
    assert browser.script(rows) == shown > 30


def test_dark_and_light(many, browser):
    paper = "return getComputedStyle(document.body).backgroundColor"
    assert browser.script(paper) == "rgb(255, 255, 255)"
    browser.script("""const theme = document.getElementById('theme');
        theme.value = 'dark'; theme.dispatchEvent(new Event('change'))""")  # fmt: skip
    assert browser.script(paper) == "rgb(20, 24, 29)"


def test_nothing_sticks_out_of_a_narrow_window(many):
    with Browser(width=500, height=900) as narrow:
        narrow.open(many)
        narrow.wait(READY)
        narrow.script("document.querySelector('#table .name').click()")
        assert narrow.script("return document.documentElement.scrollWidth <= innerWidth")
