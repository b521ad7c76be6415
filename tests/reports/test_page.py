"""``prunebench page``: the contents of the file, none of which can act as markup."""

import gzip
import json
import shutil
import subprocess
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import pytest

from prunebench.records import write_json
from prunebench.records.metrics import MetricsLog
from prunebench.reports import cells
from prunebench.reports.figures import Spread
from prunebench.reports.load import load_runs
from prunebench.reports.page.content import POINTS, why_whole
from prunebench.reports.page.write import rendered

REFERENCE = Path(__file__).resolve().parents[2] / "outputs" / "reference"
ASSETS = Path(cells.__file__).parent / "page" / "assets"
HOSTILE = '</script><img src=x onerror="document.title=1">'


def data_of(text: str) -> dict:
    packed = text.partition('id="data">')[2].partition("</script>")[0]
    return json.loads(gzip.decompress(b64decode(packed)))


@pytest.fixture(scope="module")
def foad() -> str:
    return rendered([REFERENCE / "foad_resnet20"])


def test_a_row_has_the_figures_of_its_runs_and_published_ones_their_tier(foad):
    rows = data_of(foad)["rows"]
    run = load_runs([REFERENCE / "foad_resnet20"]).reports[0][1]
    assert rows[0]["accuracy"] == run.at("finetuned_last").test.accuracy
    assert rows[0]["macs"]["after"] == run.at("finetuned_last").macs
    assert rows[0]["runs"] == [0]
    assert {row["tier"] for row in rows} == {"", "printed", "quoted"} - ({"quoted"} - {
        row["tier"] for row in rows})  # fmt: skip
    assert all(row["source"] for row in rows if row["tier"])


def test_a_run_tells_of_each_layer_why_it_is_whole(foad):
    [run] = data_of(foad)["runs"]
    layers = {line[0]: line for line in run["layers"]}
    assert layers["layer1.0.conv1"][1:3] == [16, 11] and layers["layer1.0.conv1"][-1] == ""
    assert layers["linear"][-1] == "the output of the network"
    assert "budget.scope=inner" in layers["layer1.0.conv2"][-1]
    assert run["config"]["criterion.t"] is not None
    assert run["environment"]["device"] == "AMD EPYC"
    assert run["curves"] is None
    assert run["speed"][0].endswith(
        "1.05x as fast at batch 1: widths of 10, 11, 13, ... may cost you the speed-up: "
        "budget.divisor=8"
    )


def test_a_group_without_a_score_is_told(make_report):
    report = load_runs([REFERENCE / "foad_resnet20"]).reports[0][1]
    layer = next(one for one in report.layers if one.name == "layer1.0.conv1")
    whole = replace(layer, channels_after=layer.channels_before)
    assert why_whole(report, whole) == "criterion and budget keep all its channels"
    unscored = replace(report, unscored={layer.name: "no ReLU"})
    assert why_whole(unscored, whole) == "no score: no ReLU"


def test_curves_are_thinned_and_keep_their_end(tmp_path, make_report):
    log = MetricsLog(tmp_path / "metrics.jsonl", fresh=True)
    for epoch in range(1, POINTS * 2 + 2):
        log.append({"stage": "finetune", "epoch": epoch, "epochs": 999, "correct": epoch, "lr": 1,
                    "seen": 1000, "loss": 1.0, "val_seen": 0, "seconds": 1})  # fmt: skip
    write_json(tmp_path / "report.json", make_report())
    [run] = data_of(rendered([tmp_path]))["runs"]
    points = run["curves"]["curves"]["train"]
    assert len(points) <= POINTS
    assert points[-1] == [POINTS * 2 + 1, 30.1]


def test_no_record_becomes_markup(tmp_path, make_report):
    hostile = make_report(choices={"criterion": HOSTILE, "model": HOSTILE}, note=HOSTILE)
    write_json(tmp_path / "report.json", hostile)
    text = rendered([tmp_path])
    assert "onerror" not in text.replace("&quot;", '"').partition("<title>")[0]
    assert HOSTILE not in text and "<img" not in text
    assert HOSTILE in data_of(text)["rows"][0]["model"]


def test_the_file_holds_all_and_asks_for_nothing(foad):
    head = foad.partition("<style>")[0]
    assert "default-src 'none'" in head
    assert "{{" not in head and "sourceMappingURL" not in foad
    for kind in ('src="', "src='", '<link rel="stylesheet"', "@import"):
        assert kind not in foad.replace('<link rel="icon" href="data:,">', "")
    assert "Copyright (c) 2014-2024 Chart.js Contributors" in foad
    assert "Oli Folkerd" in foad


def test_all_committed_reports_make_a_small_page():
    assert len(rendered([REFERENCE])) < 1_000_000  # about 200 runs


def test_the_command_says_where_the_page_is(torch_free, sweep):
    done = torch_free.run("-m", "prunebench", "page", ".", "-o", "a.html", cwd=sweep)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a.html\n", "")
    assert len(data_of((sweep / "a.html").read_text())["notes"]) > 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["gone"], "gone is not there"),
        ([".", "-o", "a.pdf"], "-o a.pdf: a page is an .html"),
        ([".", "-o", "gone/a.html"], "-o gone/a.html cannot be written"),
    ],
)
def test_a_mistake_is_one_line(torch_free, sweep, words, told):
    done = torch_free.run("-m", "prunebench", "page", *words, cwd=sweep)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_figures_read_as_in_tables():
    """Also what rounds to nothing, which has no sign, and what rounds up to the next prefix."""
    values = [0, 0.02, -0.02, 0.06, -0.06, 50.18, 999.94, 999_950, 1e6, 269_434, 3.2e13]
    script = (ASSETS / "figures.js").read_text(encoding="utf-8") + (
        f"for (const x of {values}) console.log(counted(Math.abs(x)), points(x), percent(x));"
    )
    done = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True)
    spreads = [Spread(float(value)) for value in values]
    assert done.stdout.replace("−", "-").splitlines() == [
        f"{cells.amount(Spread(abs(one.mean)))} {cells.points(one)} {cells.percent(one)}"
        for one in spreads
    ]
    assert cells.amount(Spread(999_950.0)) == "1 M"
    assert cells.amount(Spread(3.2e13), "B") == "32 TB"
