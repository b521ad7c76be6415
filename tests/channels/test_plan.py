"""Plans: JSON, checks of indices, and composition."""

from __future__ import annotations

import pytest

from prunebench.channels import Plan
from prunebench.errors import PruningError


def test_json_round_trip() -> None:
    plan = Plan({"b": [0, 2], "a": (1,)})
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert hash(again) == hash(plan)
    assert again != Plan({"a": [1], "b": [0, 3]})


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"kept": {"a": ["x"]}}', '{"kept": [1]}'])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(PruningError, match="not a plan"):
        Plan.from_json(text)


@pytest.mark.parametrize(
    ("kept", "message"),
    [([], "keep at least 1"), ([1, 1], "ascending"), ([2, 1], "ascending"), ([-1], "ascending")],
)
def test_bad_indices_are_refused(kept: list[int], message: str) -> None:
    with pytest.raises(PruningError, match=message):
        Plan({"a": kept})


def test_compose_renumbers() -> None:
    first, then = Plan({"a": [1, 3, 5], "b": [0]}), Plan({"a": [0, 2], "c": [7]})
    assert Plan.compose(first, then) == Plan({"a": [1, 5], "b": [0], "c": [7]})
    with pytest.raises(PruningError, match="3 channels after the first plan"):
        Plan.compose(first, Plan({"a": [3]}))
