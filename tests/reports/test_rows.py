"""Figures of the table, computed by hand from the counts."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from prunebench.records import Report, StepRecord
from prunebench.reports.figures import Change, Spread, spread
from prunebench.reports.notes import busy, latency_notes, notes_of
from prunebench.reports.rows import Row, rows_of

Maker = Callable[..., Report]


def rows(*reports: Report) -> list[Row]:
    return rows_of([(Path(f"{i}.json"), report) for i, report in enumerate(reports)], [])


def test_spread_is_the_sample_deviation() -> None:
    # mean 5; squares 9+1+1+1+0+0+4+16 = 32; 32 / (8 - 1)
    found = spread([2, 4, 4, 4, 5, 5, 7, 9])
    assert found == Spread(5.0, pytest.approx((32 / 7) ** 0.5))
    assert spread([3.5]) == Spread(3.5, None)
    assert spread([]) is None


def test_three_seeds_by_hand(make_report: Maker) -> None:
    (row,) = rows(
        make_report(0, base=900, last=880, sizes=(500, 4000)),
        make_report(1, base=910, last=880, sizes=(500, 4000)),
        make_report(2, base=920, last=900, sizes=(1000, 4000)),
    )
    assert row.seeds == 3
    assert row.top1["baseline"] == Spread(91.0, pytest.approx(1.0))  # 90 91 92
    assert row.top1["finetuned_last"].mean == pytest.approx(266 / 3)  # 88 88 90
    assert row.top1["finetuned_last"].std == pytest.approx((4 / 3) ** 0.5)
    # The drop is taken run by run (2 3 2), so its spread is not that of the two columns.
    assert row.drop == Spread(pytest.approx(7 / 3), pytest.approx((1 / 3) ** 0.5))
    assert row.params.before == Spread(2000.0, 0.0)
    assert row.params.after.mean == pytest.approx(2000 / 3)
    assert row.params.reduction.mean == pytest.approx(200 / 3)  # 75 75 50
    assert row.params.reduction.std == pytest.approx((1250 / 6) ** 0.5)
    assert row.macs.reduction == Spread(pytest.approx(60.0), pytest.approx(0.0))
    assert row.size.after.mean == pytest.approx(4 * 2000 / 3)
    assert (row.latency[1].before.mean, row.latency[64].after.mean) == (4.0, 40.0)


def test_repeated_seed_is_not_another_sample(make_report: Maker) -> None:
    old = make_report(0, last=100, finished_at="2026-01-01T00:00:00+00:00")
    new = make_report(0, last=880, finished_at="2026-01-02T00:00:00+00:00")
    for order in ((old, new), (new, old)):
        (row,) = rows(*order, make_report(1))
        assert row.seeds == 2
        assert row.top1["finetuned_last"] == Spread(88.0, 0.0)
        assert row.repeated == {0: 2}
        said = "Run more than once, the last one counts: foad, own, recipe quick, seed 0 (2 runs)"
        assert said in notes_of([row])


def test_a_tracker_that_gave_up_is_told(make_report: Maker) -> None:
    (row,) = rows(make_report(0), replace(make_report(1), untracked="wandb (no answer)"))
    assert [note for note in notes_of([row]) if "curves" in note] == [
        "Incomplete curves of foad, own, recipe quick, seed 1: wandb (no answer)"
    ]


def test_settings_that_names_hide_split_rows_and_are_named(make_report: Maker) -> None:
    found = rows(
        make_report(config={"criterion": {"t": 1, "s": 0.0}, "model": {"width": 1.0}}),
        make_report(config={"criterion": {"t": 2, "s": 0.0}, "model": {"width": 1.0}}),
        make_report(config={"criterion": {"t": 2, "s": 0.0}, "model": {"width": 0.5}}),
    )
    assert [row.details for row in found] == [
        "criterion.t=1, model.width=1.0",
        "criterion.t=2, model.width=0.5",
        "criterion.t=2, model.width=1.0",
    ]
    assert {row.method for row in found} == {"foad, own, recipe quick"}


def test_cases_are_summed_over_groups_and_steps_and_averaged_over_seeds(
    make_report: Maker,
) -> None:
    def step(**counts: dict[str, int]) -> StepRecord:
        return StepRecord(
            name="all", groups=[], share=1.0, kept={}, criterion_seconds=0.0, seconds=0.0,
            surgery_error=0.0, unprunable={}, counts=counts,
        )  # fmt: skip

    found = rows(
        replace(
            make_report(0),
            steps=[
                step(a={"case1": 3, "case2": 1, "case4": 0}, b={"case1": 1}),
                step(a={"case1": 2}),
            ],
        ),
        replace(make_report(1), steps=[step(a={"case1": 4, "case2": 3})]),
    )
    took = {"halves": 9, "passed": 4, "least_draws": 30, "milliseconds": 1200}
    searched = rows(replace(make_report(0), steps=[step(a=took)]))
    assert searched[0].counted == {}  # these are no channels
    assert found[0].counted == {"case1": spread([6, 4]), "case2": spread([1, 3])}
    text = notes_of(found)
    assert "Channels by case, foad, own, recipe quick: case1 5.0 ± 1.4, case2 2.0 ± 1.4" in text
    assert not any("by case" in note for note in notes_of(rows(make_report())))
    other = replace(found[0], model="ghostnet")
    text = notes_of([found[0], other])
    assert [note.partition(":")[0] for note in text if "by case" in note] == [
        f"Channels by case, {model}, foad, own, recipe quick"
        for model in (found[0].model, "ghostnet")
    ]


def test_where_a_run_was_carried_out_is_no_setting(make_report: Maker) -> None:
    (row,) = rows(
        make_report(0, config={"name": "a", "tracker": {"mode": "auto"}, "dataset": {"root": "x"}}),
        make_report(1, config={"name": "b", "tracker": None, "dataset": {"root": "y"}}),
    )
    assert (row.seeds, row.details) == (2, "")


def test_method_names_say_what_was_run(make_report: Maker) -> None:
    chosen = {
        "method": "thinet_tpami",
        "criterion": "l1",
        "budget": "macs",
        "schedule": "layerwise",
    }
    names = {"repair": "least_squares", "recipe": "none"}
    (row,) = rows(make_report(choices=chosen | names))
    assert row.method == "l1, macs, least_squares, layerwise"  # it is not ThiNet any more
    (row,) = rows(make_report(choices=chosen | names | {"criterion": "thinet_tpami"}))
    assert row.method == "thinet_tpami, budget=macs"
    (row,) = rows(make_report(choices={"method": "foad"}))
    assert row.method == "foad, recipe quick"
    (row,) = rows(make_report(choices={"method": "foad", "repair": "bn_recalibration"}))
    assert row.method == "foad, repair=bn_recalibration, recipe quick"
    (row,) = rows(make_report(choices={"method": "mine"}))
    assert row.method == "mine, foad, own, recipe quick"


def test_failed_runs_count_even_without_a_finished_one(
    make_report: Maker, make_failure: Callable[..., object]
) -> None:
    done, lost = make_report(0), make_report(1, config={"criterion": {"t": 9}})
    failures = [(Path("f"), make_failure(make_report(5))), (Path("g"), make_failure(lost))]
    found = rows_of([(Path("r"), done)], failures)
    assert [(row.seeds, row.failed, row.details) for row in found] == [
        (1, 1, "criterion.t=1"),
        (0, 1, "criterion.t=9"),
    ]
    assert found[1].top1 == {}
    assert found[1].params is None


def test_missing_stages_stay_empty(make_report: Maker) -> None:
    (row,) = rows(make_report(last=None))
    assert set(row.top1) == {"baseline", "pruned"}
    assert row.drop is None
    assert row.params.after == Spread(500.0)
    (row,) = rows(make_report(0, best=885), make_report(1))  # best val in one seed only
    assert "finetuned_best_val" not in row.top1


def test_times_of_different_machines_have_no_mean(make_report: Maker) -> None:
    (row,) = rows(make_report(0, device="CPU X"), make_report(1, device="GPU Y"))
    assert row.latency == {}
    assert row.hardware == "CPU X, 1 thread; GPU Y, 1 thread"
    assert row.top1["finetuned_last"] == Spread(88.0, 0.0)


def test_the_file_of_ones_own_data_is_named(make_report: Maker) -> None:
    choices = {"dataset": "npz"}
    found = rows(
        make_report(choices=choices, config={"dataset": {"path": "/a/long/way/cats.npz"}}),
        make_report(choices=choices, config={"dataset": {"path": "dogs.npz"}}),
    )
    assert [row.dataset for row in found] == ["npz (cats.npz)", "npz (dogs.npz)"]


def test_what_was_found_in_a_network_is_timed_beside_it() -> None:
    def timed(model: str, restlessness: float, hardware: str = "X") -> Row:
        latency = {1: Change(Spread(4.0), Spread(2.0), Spread(50.0))}
        return Row(
            model=model, dataset="d", method="m", latency=latency, hardware=hardware,
            restlessness=restlessness,
        )  # fmt: skip

    rows = [timed("vgg16", 0.3), timed("vgg16, found", 0.1), timed("vgg16", 0.1, "Y")]
    assert busy(rows) == {("vgg16", "d", "X"): 0.3}
    assert latency_notes(rows) == [
        "Latency: median per forward pass on Y, interquartile range up to 10% of it"
    ]
