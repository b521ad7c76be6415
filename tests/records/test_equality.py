"""A repetition is compared in the order of a run, and without its times."""

from dataclasses import replace

from prunebench.records import StepRecord
from prunebench.records.equality import first_difference, other_surroundings


def test_times_and_places_are_not_compared(make_report):
    before = make_report()
    now = replace(before, seconds={"baseline": 3.0}, finished_at="2030-01-01T00:00:00+00:00")
    slower = [replace(m, latency=[], size_bytes=1) for m in before.measurements]
    assert first_difference(before, replace(now, measurements=slower)) == ""


def test_what_a_search_took_is_compared_but_for_its_time(make_report):
    def searched(halves, milliseconds):
        counts = {"conv1": {"halves": halves, "milliseconds": milliseconds}}
        step = StepRecord(
            name="training", groups=["conv1"], share=1.0, kept={}, criterion_seconds=0.0,
            seconds=0.0, surgery_error=0.0, unprunable={}, counts=counts,
        )  # fmt: skip
        return replace(make_report(), steps=[step])

    assert first_difference(searched(3, 12), searched(3, 15)) == ""
    assert "steps.training.counts.conv1.halves" in first_difference(
        searched(3, 12), searched(4, 12)
    )


def test_the_first_difference_is_named(make_report):
    before = replace(make_report(last=880), plan={"conv1": [0, 1, 2]})
    later = replace(make_report(last=881), plan={"conv1": [0, 1, 2]})
    said = "finetuned_last.test.correct: 880 in the report, 881 here"
    assert first_difference(before, later) == said
    other = replace(later, plan={"conv1": [2, 3]})
    said = "plan.conv1: 3 kept in the report, 2 here, 1 of them the same"
    assert first_difference(before, other) == said
    earlier = replace(make_report(base=901, last=881), plan=other.plan)
    said = "baseline.test.correct: 900 in the report, 901 here"
    assert first_difference(before, earlier) == said
    cut = replace(before, measurements=before.measurements[:-1])
    assert first_difference(before, cut).startswith("finetuned_last.")


def test_other_surroundings_are_named(make_report):
    before = replace(make_report(), environment={"torch": "2.6.0", "device": "CPU X"})
    now = {"torch": "2.14.1", "device": "CPU X"}
    assert other_surroundings(before, now) == "torch 2.6.0 in the report, 2.14.1 here"
