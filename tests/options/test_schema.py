"""Values that an option needs must be typed, whatever defaults its class has."""

from dataclasses import dataclass

import pytest

from prunebench.errors import ConfigError
from prunebench.options.schema import section


@dataclass(frozen=True)
class Powered:
    power: float = 1.0


def test_a_value_that_a_yaml_leaves_open_is_asked_for():
    with pytest.raises(ConfigError, match=r"^criterion.power is not set; give criterion.power=..."):
        section("criterion", {"power": "???"}, Powered)
    assert section("criterion", {"power": 2}, Powered) == Powered(2.0)
    assert section("criterion", {}, Powered) == Powered()


@pytest.mark.parametrize("value", ["${nope}", "${oc.env:PRUNEBENCH_NOPE}"])
def test_a_value_that_refers_to_nothing_is_named(value):
    with pytest.raises(ConfigError, match=r"^criterion.power: .*(nope|NOPE)' not found"):
        section("criterion", {"power": value}, Powered)
