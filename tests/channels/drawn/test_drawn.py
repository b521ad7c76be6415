"""Networks drawn as source are cut exactly, frozen or refused with a reason, but never wrong."""

from __future__ import annotations

import sys
from collections import Counter
from statistics import mean

import pytest
from drawn.frames import HEADS, INPUTS, OUTPUTS
from drawn.oracle import Verdict, judge
from drawn.program import BLOCKS, FRAGMENTS, Program, alone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")

SEEDS = range(25)  # every variant of a fragment comes up


def drawn(most: int) -> st.SearchStrategy[Program]:
    """Draws networks of up to `most` blocks."""
    return st.builds(
        Program,
        blocks=st.lists(st.sampled_from([*BLOCKS]), min_size=1, max_size=most).map(tuple),
        head=st.sampled_from([*HEADS]),
        inputs=st.sampled_from([*INPUTS]),
        outputs=st.sampled_from([*OUTPUTS]),
        seed=st.integers(0, 10**6), warmed=st.booleans(),
        cut=st.sampled_from([False, False, False, True]),
    )  # fmt: skip


def require_good(program: Program, verdict: Verdict) -> None:
    """Fails with the network as a program to read and run."""
    assert verdict.good, f"{verdict.word}: {verdict.why}\n\n{program.source()}"


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(program=drawn(most=2))
def test_drawn_networks(program: Program) -> None:
    require_good(program, judge(program))


@pytest.mark.slow
@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_each_fragment_alone(fragment: str) -> None:
    for seed in SEEDS:
        program = alone(fragment, seed)
        require_good(program, judge(program))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_thousand_networks(capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[Program, Verdict] = {}

    @settings(
        max_examples=2000, deadline=None, derandomize=True, database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
    @given(program=drawn(most=4))
    def judged(program: Program) -> None:
        found[program] = judge(program, plan=1)

    judged()
    words = Counter(verdict.word for verdict in found.values())
    left = [verdict.share for verdict in found.values() if verdict.word == "cut"]
    shares = ", ".join(f"{word} {n / len(found):.1%}" for word, n in words.most_common())
    with capsys.disabled():
        sys.stdout.write(f"\n{len(found)} networks: {shares}; {mean(left):.0%} of those cut left\n")
    bad = [f"{program}: {verdict}" for program, verdict in found.items() if not verdict.good]
    assert not bad, f"{len(bad)} broken promises:\n" + "\n".join(bad[:20])
