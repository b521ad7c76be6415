"""Which runs share a setting, and how tables name it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from prunebench.records import LayerRow, Report, from_json, to_json
from prunebench.records.identity import as_origin, control, names, setting
from prunebench.reports.rows import rows_of

Maker = Callable[..., Report]


def layer(after: int) -> LayerRow:
    return LayerRow(
        name="fc",
        channels_before=10,
        channels_after=10,
        params_before=100,
        params_after=after,
        macs_before=100,
        macs_after=after,
    )


@pytest.fixture
def trained_anew(make_report: Maker) -> Callable[..., Report]:
    """Returns a maker of runs that train the structure another run found."""

    def make(seed: int, found_by: Report, last: int = 880, macs: float | None = None) -> Report:
        model = {"report": f"outputs/search-{found_by.seed}/report.json", "macs": macs}
        choices = {"model": "found", "criterion": "random"}
        report = make_report(seed, last=last, config={"model": model}, choices=choices)
        return replace(report, origin=as_origin(found_by), layers=[layer(after=100)])

    return make


def rows(*reports: Report):  # type: ignore[no-untyped-def]
    return rows_of([(Path(f"{i}.json"), report) for i, report in enumerate(reports)], [])


def test_each_seed_with_its_own_structure_is_one_setting(
    make_report: Maker, trained_anew: Callable[..., Report]
) -> None:
    searches = [make_report(seed) for seed in (0, 1)]
    (row,) = rows(*(trained_anew(s.seed, s, last=880 + 10 * s.seed) for s in searches))
    assert (row.seeds, row.top1["finetuned_last"].mean) == (2, pytest.approx(88.5))
    assert row.model == "lenet5, found"
    assert row.method == "not pruned, recipe quick"


def test_other_structures_are_other_settings(
    make_report: Maker, trained_anew: Callable[..., Report]
) -> None:
    search, wider = make_report(0), make_report(0, config={"criterion": {"t": 2}})
    found = rows(trained_anew(0, search), trained_anew(0, wider), trained_anew(0, search, macs=1.0))
    assert [row.seeds for row in found] == [1, 1, 1]
    assert [row.model for row in found] == ["lenet5, found"] * 2 + ["lenet5, re-designed"]
    assert len({row.details for row in found[:2]}) == 2


def test_one_structure_under_several_seeds_is_a_row_of_its_own(
    make_report: Maker, trained_anew: Callable[..., Report]
) -> None:
    searches = [make_report(seed) for seed in (0, 1, 2)]
    again = [trained_anew(seed, searches[0], last=800 + 10 * seed) for seed in (0, 1, 2)]
    (row,) = rows(*again)
    assert (row.seeds, row.details) == (3, "structure of seed 0")
    own = [trained_anew(search.seed, search, last=700) for search in searches[1:]]
    each, same = rows(*again, *own)
    assert (each.seeds, each.details) == (3, "")  # seed 0 is in both
    assert each.top1["finetuned_last"].mean == pytest.approx((80 + 70 + 70) / 3)
    assert (same.seeds, same.details) == (3, "structure of seed 0")
    assert same.top1["finetuned_last"].mean == pytest.approx(81)
    (row,) = rows(trained_anew(3, searches[1]), trained_anew(4, searches[1]))
    assert (row.seeds, row.details) == (2, "structure of seed 1")
    found = rows(trained_anew(3, searches[1]), trained_anew(2, searches[2]))
    assert [(row.seeds, row.details) for row in found] == [(1, ""), (1, "structure of seed 1")]


def test_a_run_that_cut_nothing_says_so_behind_its_name(make_report: Maker) -> None:
    report = make_report()
    unchanged = names(replace(report, layers=[layer(100)]))[2]
    assert unchanged == "foad, own, recipe quick; not pruned"
    assert names(replace(report, layers=[layer(100), layer(99)]))[2] == "foad, own, recipe quick"


def test_the_origin_is_kept_on_disk(
    make_report: Maker, trained_anew: Callable[..., Report]
) -> None:
    report = trained_anew(0, make_report(0))
    assert from_json(Report, to_json(report), "here").origin == report.origin


def test_runs_on_other_data_are_other_settings(make_report: Maker) -> None:
    def on(seed: int, path: str, held: str | None) -> Report:
        report = make_report(seed, config={"dataset": {"path": path}})
        return replace(report, contents=None if held is None else {"dataset.path": held * 64})

    before = on(0, "a.npz", None)
    assert len(rows(before, on(1, "a.npz", "1"))) == 2
    (row,) = rows(on(0, "a.npz", "1"), on(1, "elsewhere/a.npz", "1"))
    assert (row.seeds, row.details) == (2, "")
    found = rows(on(0, "a.npz", "1"), on(1, "a.npz", "2"), on(1, "b/c.npz", "3"))
    assert [(row.dataset, row.details) for row in found] == [
        ("digits (a.npz)", "dataset.path=sha256 111111111111"),
        ("digits (a.npz)", "dataset.path=sha256 222222222222"),
        ("digits (c.npz)", ""),
    ]


def test_a_copy_of_the_data_is_not_the_published_set(make_report: Maker) -> None:
    published = replace(make_report(0, config={"dataset": {"root": "data"}}), contents={})
    copy = replace(
        make_report(1, config={"dataset": {"root": "data"}}), contents={"dataset.root": "1" * 64}
    )
    assert len(rows(published, copy)) == 2
    assert len(rows(published, replace(published, seed=1, contents=None))) == 1


def test_contents_are_kept_on_disk(make_report: Maker, make_failure: Maker) -> None:
    report = replace(make_report(0), contents={"dataset.path": "1" * 64})
    assert from_json(Report, to_json(report), "here") == report
    failure = replace(make_failure(report), contents=report.contents)
    assert setting(failure) == setting(report)


@pytest.mark.parametrize(
    ("choices", "method"),
    [
        ({"budget": "macs"}, "thinet, macs, one-shot, no least squares"),
        ({"budget": "macs", "repair": "least_squares"}, "thinet, macs, least_squares, one-shot"),
        ({"budget": "macs", "schedule": "layerwise"}, "thinet, macs, layerwise, no least squares"),
        ({"method": "thinet", "budget": "uniform", "repair": "least_squares",
          "schedule": "layerwise"}, "thinet"),
    ],
)  # fmt: skip
def test_the_ranking_of_thinet_alone_is_not_called_thinet(
    make_report: Maker, choices: dict[str, str], method: str
) -> None:
    plain = {"criterion": "thinet", "repair": "none", "schedule": "oneshot", "recipe": "none"}
    report = make_report(0, choices={**plain, **choices})
    assert names(report)[2] == method


@pytest.mark.parametrize(
    ("option", "section", "name"),
    [
        ("import", {"target": "my.module.Net"}, "Net"),
        ("timm", {"name": "resnet18"}, "resnet18"),
        ("resnet20", {"depth": 20}, "resnet20"),
    ],
)
def test_a_network_of_others_goes_by_its_own_name(
    make_report: Maker, option: str, section: dict[str, object], name: str
) -> None:
    report = make_report(config={"model": section}, choices={"model": option})
    assert names(report)[0] == name


@pytest.mark.parametrize(
    ("choices", "which"),
    [
        ({}, ""),
        ({"criterion": "random"}, "random channels"),
        ({"criterion": "random", "schedule": "redraw"}, "uniform width"),
        ({"criterion": "l1", "schedule": "redraw"}, "found structure"),
        ({"criterion": "random", "schedule": "never"}, "dense"),
    ],
)
def test_controls_are_known_by_what_they_do(
    make_report: Maker, choices: dict[str, str], which: str
) -> None:
    assert control(make_report(choices=choices)) == which


def test_whatever_cuts_nothing_or_takes_a_structure_is_a_control(
    make_report: Maker, trained_anew: Callable[..., Report]
) -> None:
    nothing_cut = replace(make_report(), layers=[layer(after=100)])
    assert control(nothing_cut) == "dense"
    search = make_report()
    assert control(trained_anew(0, search)) == "found structure"
    assert control(trained_anew(0, search, macs=1.0)) == ""  # re-design: that is the method
