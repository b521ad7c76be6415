"""``prunebench plot``: what is drawn, how it looks, and one line if nothing can be."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from prunebench.cli import answer
from prunebench.errors import ConfigError, DataError
from prunebench.records import LayerRow, Report, SensitivityPoint, Verification, write_json
from prunebench.records.metrics import MetricsLog
from prunebench.reports.curves import course_of
from prunebench.reports.front import front
from prunebench.reports.load import load_runs
from prunebench.reports.plot import canvas
from prunebench.reports.plot.canvas import COLOURS, look, told_apart
from prunebench.reports.plot.draw import drawn, plot
from prunebench.reports.plot.of_run import plots_of
from prunebench.reports.plot.pareto import Cost
from prunebench.reports.rows import rows_of

REFERENCE = Path(__file__).resolve().parents[2] / "outputs" / "reference"
EPOCH = {"epochs": 2, "lr": 0.1, "loss": 1.0, "seconds": 1.0, "seen": 50, "val_seen": 20}


@pytest.fixture
def logged(tmp_path: Path, make_report) -> Path:
    """The report of a run with a course of four epochs and one cut."""
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for stage in ("baseline", "finetune"):
        for epoch in (1, 2):
            log.append({"stage": stage, "epoch": epoch, "correct": 25, "val_correct": 5} | EPOCH)
        log.append({"stage": f"end of {stage}", "params": 3, "test/top1": 40.0})
        if stage == "baseline":
            log.append({"stage": "prune-oneshot", "surgery_error": 0.0})
    write_json(tmp_path / "report.json", make_report())
    return tmp_path / "report.json"


def figure(paths, kind, cost="macs", published=True):
    rows = rows_of(load_runs(paths).reports, [])
    with canvas.style():
        return drawn(rows, kind, Cost(cost), published=published)


def legend_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_the_front_is_what_nothing_beats():
    points = [(3.0, 90.0), (1.0, 80.0), (2.0, 79.0), (2.0, 85.0), (4.0, 90.0)]
    assert front(points) == [(1.0, 80.0), (2.0, 85.0), (3.0, 90.0)]
    assert front([]) == []


def test_pareto_shows_each_method_the_dense_network_and_what_is_published():
    [axes] = figure([REFERENCE / "foad_resnet20"], "pareto").axes
    run = load_runs([REFERENCE / "foad_resnet20"]).reports[0][1]
    after, before = run.at("finetuned_last"), run.at("baseline")
    points = {
        line.get_label(): list(zip(*line.get_data(), strict=True))
        for line in axes.get_lines()
        if line.get_label()[0] != "_"
    }
    assert points["not pruned"] == [(before.macs, before.test.accuracy)]
    assert points["front of our runs"] == [(after.macs, after.test.accuracy)]  # 0.1 above dense
    assert {"published: printed", "foad, recipe short"} <= {*legend_of(axes)}
    [axes] = figure([REFERENCE / "foad_resnet20"], "pareto", published=False).axes
    assert "published: printed" not in legend_of(axes)


def test_one_method_at_several_budgets_is_one_line():
    folders = [REFERENCE / f"criteria_resnet56{end}" for end in ("", "_macs70")]
    [axes] = figure(folders, "pareto").axes
    assert [name for name in legend_of(axes) if name.startswith("l1")] == ["l1"]
    assert axes.get_title() == "resnet56 on cifar10\nmacs, recipe short"


def test_names_keep_what_sets_them_apart():
    assert told_apart(["l1, macs", "random, macs"]) == (["l1", "random"], "macs")
    marked = ["random, macs (control)", "l1, macs"]
    assert told_apart(marked) == (["random (control)", "l1"], "macs")
    assert told_apart(["l1, macs"]) == (["l1, macs"], "")
    [long] = told_apart(["x" * 99])[0]
    assert len(long) == canvas.NAME
    assert told_apart(["a$b$"])[0] == [r"a\$b\$"]  # no maths


def test_series_look_different():
    assert len({tuple(look(number).items()) for number in range(64)}) == 64
    assert len({*COLOURS}) == 8


def test_channels_of_one_run_are_bars_and_of_several_shares(sweep):
    [axes] = figure([REFERENCE / "foad_resnet20"], "channels").axes
    run = load_runs([REFERENCE / "foad_resnet20"]).reports[0][1]
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == [one.channels_before for one in run.layers] + [
        one.channels_after for one in run.layers
    ]
    [axes] = figure([REFERENCE / "criteria_resnet20"], "channels").axes
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert "layer1.0.conv1" in names and "conv1" not in names  # which nobody cuts
    assert len(axes.get_lines()) == len(legend_of(axes)) == 13
    with pytest.raises(DataError, match="different layers: resnet20, vgg16"):
        figure([REFERENCE / "foad_resnet20", REFERENCE / "aofp_redesign"], "channels")


def test_curves_show_the_cut(logged):
    course = course_of(logged)
    assert course.curves["train"] == [(n, 50.0) for n in (1, 2, 3, 4)]
    assert course.curves["test"] == [(2, 40.0), (4, 40.0)]
    assert course.cuts == [(2, "prune-oneshot")]
    [axes] = figure([logged], "curves").axes
    assert legend_of(axes) == ["training", "validation", "test", "channels go"]


def test_roc_has_a_curve_before_and_after(tmp_path, make_report):
    found = Verification(
        protocol="insightface", correct=[9], pairs=[10], thresholds=[1.0], far=0.001,
        accepted=[0.9], roc=[[0.0, 0.1], [0.001, 0.8], [1.0, 1.0]],
    )  # fmt: skip
    run: Report = make_report()
    faces = [replace(one, verification={"lfw": found}) for one in run.measurements]
    write_json(tmp_path / "report.json", replace(run, measurements=faces))
    [axes] = figure([tmp_path], "roc").axes
    assert [line.get_linestyle() for line in axes.get_lines()] == [":", "-"]
    assert list(axes.get_lines()[0].get_xdata()) == [0.001, 1.0]  # 0 has no logarithm
    assert legend_of(axes)[1].endswith("LFW, after")


def test_sensitivity_is_a_curve_and_a_line_of_the_map_for_each_group(tmp_path, make_report):
    run = make_report()
    scored = [replace(one, val=one.test) for one in run.measurements]
    points = [
        SensitivityPoint(group=name, share=share, channels=8, kept=int(8 * share), macs=9,
                         correct=correct, seen=100)
        for name, losses in {"a": (80, 50), "b": (88, 85)}.items()
        for share, correct in zip((0.75, 0.25), losses, strict=True)
    ]  # fmt: skip
    write_json(tmp_path / "report.json", replace(run, measurements=scored, sensitivity=points))
    curves, heat, _ = figure([tmp_path], "sensitivity").axes
    assert [list(line.get_ydata()) for line in curves.get_lines()] == [[90, 80, 50], [90, 88, 85]]
    assert list(curves.get_lines()[0].get_xdata()) == [0, 25, 75]
    assert heat.get_images()[0].get_array().tolist() == [[10, 40], [2, 5]]
    assert heat.get_images()[0].get_clim() == (0, 40)  # from nothing, whatever was lost least
    assert [text.get_text() for text in heat.get_xticklabels()] == ["25", "75"]


def test_speed_up_stands_beside_the_diagonal(tmp_path, make_report):
    write_json(tmp_path / "report.json", make_report())
    [axes] = figure([tmp_path], "speedup").axes
    points = [tuple(line.get_xydata()[0]) for line in axes.get_lines()[:2]]
    assert points == [(2.5, 2.0), (2.5, 2.5)]  # 10 to 4 kMACs; 4 to 2 and 100 to 40 ms
    assert legend_of(axes)[0] == "batch 1"
    [axes] = figure([tmp_path], "pareto", cost="latency").axes
    assert axes.get_xlabel() == "latency, ms, batch 1"


def test_the_same_plot_is_the_same_file_one_column_wide(tmp_path, logged):
    for name in ("a.svg", "b.svg", "a.png", "a.pdf"):
        plot([logged], "curves", tmp_path / name, Cost())
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert 'width="237.6pt"' in text  # 3.3 inches
    assert ">validation</text>" in text
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["gone"], "gone is not there"),
        (["--kind", "pie"], "invalid choice: 'pie'"),
        (["-o", "a.jpg"], "-o a.jpg: a plot is one of .svg, .pdf, .png"),
        (["--kind", "curves"], "no metrics.jsonl lies beside these reports"),
        (["--kind", "sensitivity"], "0 of these runs have measured sensitivity; prunebench"),
        (["--kind", "roc"], "no run was tested on pairs of faces"),
        (["-o", "gone/a.svg"], "-o gone/a.svg cannot be written (No such file or directory)"),
    ],
)
def test_a_mistake_is_one_line(sweep, monkeypatch, capsys, words, told):
    monkeypatch.chdir(sweep)
    with pytest.raises(SystemExit) as stopped:
        answer(["plot", *([] if words == ["gone"] else ["."]), *words])
    said = capsys.readouterr()
    assert (stopped.value.code, said.out) == (2, "")
    assert told in said.err and said.err.count("\n") == 1


def test_the_command_says_where_the_plot_is(sweep, monkeypatch, capsys):
    monkeypatch.chdir(sweep)
    with pytest.raises(SystemExit, match="0"):
        answer(["plot", "."])
    assert capsys.readouterr() == ("pareto.svg\n", "")
    assert (sweep / "pareto.svg").exists()


def test_a_tracker_gets_the_plots_that_a_run_is_enough_for(logged):
    run = load_runs([logged]).reports[0][1]
    layer = LayerRow(
        name="conv", channels_before=4, channels_after=2, params_before=8, params_after=4,
        macs_before=8, macs_after=4,
    )  # fmt: skip
    plots = plots_of(logged, replace(run, layers=[layer]))
    assert [*plots] == ["channels", "curves"]  # no sensitivity, no faces
    assert all(png.startswith(b"\x89PNG") for png in plots.values())


def test_without_matplotlib_the_command_to_install_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(canvas, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'prunebench\[plot\]'"):
        plot([tmp_path], "pareto", tmp_path / "a.svg", Cost())


def test_the_picture_of_the_readme_is_of_the_committed_reports(tmp_path):
    committed = REFERENCE.parents[1] / "docs" / "pareto.svg"
    drawn_with = committed.read_text().partition("Matplotlib v")[2].partition(",")[0]
    if drawn_with != version("matplotlib"):
        pytest.skip(f"drawn with matplotlib {drawn_with}")
    folders = [REFERENCE / f"criteria_resnet56{end}" for end in ("", "_macs70")]
    plot(folders, "pareto", tmp_path / "a.svg", Cost())
    assert (tmp_path / "a.svg").read_text() == committed.read_text()
