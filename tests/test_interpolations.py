"""Values that take each other up without end are refused before anybody unfolds them."""

import pytest
from omegaconf import Container, OmegaConf, _impl
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import InterpolationResolutionError

from prunebench.interpolations import bound

TEXTS = {"a0": "x", **{f"a{i}": f"${{a{i - 1}}}${{a{i - 1}}}" for i in range(1, 40)}}
LISTS = {"a0": [1], **{f"a{i}": [f"${{a{i - 1}}}"] * 2 for i in range(1, 40)}}
SECTIONS = {
    "a0": {"x": 1},
    **{f"a{i}": dict.fromkeys("pq", f"${{a{i - 1}}}") for i in range(1, 40)},
}
LONG = {"a": "x" * 15_000, "b": "${a}${a}"}


@pytest.fixture(autouse=True)
def bounded(monkeypatch):
    for owner, name in ((Container, "resolve_parse_tree"), (_impl, "_resolve")):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    monkeypatch.setattr(BaseContainer, "_to_content", staticmethod(BaseContainer._to_content))
    bound()


@pytest.mark.parametrize("values", [TEXTS, LISTS, SECTIONS, LONG])
@pytest.mark.parametrize(
    "take",
    [lambda cfg: OmegaConf.to_container(cfg, resolve=True), OmegaConf.resolve],
    ids=["copy", "in place"],
)
def test_what_doubles_is_refused(values, take):
    with pytest.raises(InterpolationResolutionError, match=r"unfolds to more than 2,000 others"):
        take(OmegaConf.create(values))


def test_one_value_is_refused_as_a_whole_configuration_is():
    cfg = OmegaConf.create(TEXTS)
    with pytest.raises(InterpolationResolutionError, match=r"unfolds to more than 2,000 others"):
        _ = cfg.a39
    assert cfg.a3 == "x" * 8


def test_each_is_counted_by_itself():
    cfg = OmegaConf.create({"a": "x", "b": "${a}", "c": {"d": "${b}${b}"}})
    for _ in range(2001):
        assert cfg.c.d == "xx"


def test_a_colleagues_option_cannot_hang_the_command(prunebench, tmp_path):
    (tmp_path / "criterion").mkdir()
    lines = "".join(f"a{i}: ${{criterion.a{i - 1}}}${{criterion.a{i - 1}}}\n" for i in range(1, 30))
    (tmp_path / "criterion" / "mine.yaml").write_text(
        f"_target_: prunebench.criteria.l1.L1\na0: x\n{lines}"
    )
    done = prunebench(
        "--config-dir", str(tmp_path), "model=lenet5", "criterion=mine", "name=${criterion.a29}"
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "unfolds to more than 2,000 others" in done.stderr
