"""schedule=layerwise: one step per group, each followed by the epochs asked for."""

import pytest

from prunebench.errors import ConfigError, PruningError
from prunebench.schedules.layerwise import Layerwise

GROUPS = ["block1.conv1", "block1.conv2", "block2.conv1", "block2.conv2"]


def test_one_step_per_group_in_forward_order():
    steps = Layerwise(epochs=1, epochs_at=None).steps(GROUPS)
    assert [step.groups for step in steps] == [(name,) for name in GROUPS]
    assert {(step.share, step.epochs) for step in steps} == {(1.0, 1)}
    assert len({step.name for step in steps}) == 4


def test_images_of_its_own_for_every_group_only_where_asked_for():
    assert not any(step.new_images for step in Layerwise(epochs=1, epochs_at=None).steps(GROUPS))
    asked = Layerwise(epochs=1, epochs_at=None, new_images=True).steps(GROUPS)
    assert all(step.new_images for step in asked)


def test_the_first_matching_pattern_says_how_long_to_train():
    at = {"block2.conv2": 0, "*.conv2": 2}
    steps = Layerwise(epochs=1, epochs_at=at).steps(GROUPS)
    assert [step.epochs for step in steps] == [1, 2, 1, 0]


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(PruningError, match=r"schedule\.epochs_at: 'conv9' matches no group"):
        Layerwise(epochs=1, epochs_at={"conv9": 2}).steps(GROUPS)


def test_negative_epochs_are_refused():
    with pytest.raises(ConfigError, match="epochs must not be negative, got -1"):
        Layerwise(epochs=-1, epochs_at=None)
    with pytest.raises(ConfigError, match=r"epochs_at of 'a\*' must not be negative, got -2"):
        Layerwise(epochs=1, epochs_at={"a*": -2})


def test_patterns_can_be_given_on_the_command_line(prunebench):
    typed = "schedule.epochs_at={*.conv1: 0, *.conv2: 2}"
    done = prunebench("schedule=layerwise", typed, "--cfg", "job", "-p", "schedule")
    assert done.returncode == 0, done.stderr
    assert "'*.conv2': 2" in done.stdout
