"""The cubic ramp, and the fewest channels that reach a level."""

from prunebench.channels import Plan
from prunebench.criteria.cac.ramp import cubic, fewest, level

KEPT = {"a": (0, 1, 2), "b": (0, 1, 2, 3)}
ORDER = [("a", 1), ("b", 3), ("a", 0), ("a", 2), ("b", 0)]
FLOORS = {"a": 1, "b": 1}


def at_most(count):
    return lambda plan: sum(map(len, plan.kept.values())) <= count


def test_ramp_values():
    at = [int(64 * cubic(step, 100, 500)) for step in (100, 200, 300, 500, 700)]
    assert at == [0, 37, 56, 64, 64]
    assert cubic(0, 100, 500) == 0
    assert level(1000, 400, 0.5) == 700
    assert level(1000, 400, 1.0) == 400


def test_as_few_go_as_the_level_needs():
    assert fewest(KEPT, ORDER, FLOORS, at_most(7)) == (Plan(KEPT), True)
    assert fewest(KEPT, ORDER, FLOORS, at_most(5)) == (Plan({"a": (0, 2), "b": (0, 1, 2)}), True)


def test_floors_and_the_largest_step_hold():
    # a is down to its floor after two, so b goes on
    plan, reached = fewest(KEPT, ORDER, FLOORS, at_most(3))
    assert (plan, reached) == (Plan({"a": (2,), "b": (1, 2)}), True)
    assert fewest(KEPT, ORDER, FLOORS, at_most(2))[1] is False
    plan, reached = fewest(KEPT, ORDER, FLOORS, at_most(3), most=1)
    assert (plan, reached) == (Plan({"a": (0, 2), "b": KEPT["b"]}), False)
