"""Names of layers that look like numbers."""

from dataclasses import dataclass, field

import pytest

from prunebench.errors import ConfigError
from prunebench.options.schema import section


@dataclass(frozen=True)
class Section:
    """Names as they stand in a list, and as keys."""

    exclude: list[str] = field(default_factory=list)
    keep: dict[str, float] = field(default_factory=dict)


def test_whole_numbers_are_names_of_layers_in_a_sequential():
    made = section("budget", {"exclude": [0, "1"], "keep": {0: 0.5, "1.0.conv": 1}}, Section)
    assert made == Section(exclude=["0", "1"], keep={"0": 0.5, "1.0.conv": 1.0})


@pytest.mark.parametrize("value", [{"exclude": [1.10]}, {"keep": {1.10: 0.5}}])
def test_a_name_that_may_have_been_another_is_refused(value):
    with pytest.raises(ConfigError, match=r"1\.1 was read as a number, and may have been another"):
        section("budget", value, Section)
