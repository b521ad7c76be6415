"""A YAML that expands without limit is refused before it is expanded."""

import pytest

from prunebench.errors import ConfigError
from prunebench.options.aliases import require_short
from prunebench.options.files import conf_dir

BOMB = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10) if i else '1'}]\n" for i in range(9))


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "x: &x {y: *x}",
        "x: " + "[" * 400_000 + "]" * 400_000,  # of which LibYAML's composer dies
        "x: " + "[" * 60 + "]" * 60,
        "".join(f"k{i}: 1\n" for i in range(5001)),
    ],
    ids=["aliases", "itself", "brackets", "deep", "long"],
)
def test_what_unfolds_without_end_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match="x.yaml expands to more than"):
        require_short(tmp_path / "x.yaml", text)


@pytest.mark.parametrize(
    "text",
    ["a: &a [1, 2]\nb: *a\n", "".join(f"k{i}: 1\n" for i in range(4999)), "a: *b", "{", "", "- 1"],
    ids=["alias", "long", "undefined", "torn", "empty", "list"],
)
def test_what_ends_is_left_to_whoever_reads_it(tmp_path, text):
    require_short(tmp_path / "x.yaml", text)


def test_all_shipped_options_are_short():
    for path in conf_dir().rglob("*.yaml"):
        require_short(path, path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("more", [(), ("--help",)], ids=["run", "help"])
def test_a_colleagues_option_cannot_hang_the_command(prunebench, tmp_path, more):
    (tmp_path / "criterion").mkdir()
    (tmp_path / "criterion" / "mine.yaml").write_text(
        f"_target_: prunebench.criteria.l1.L1\n{BOMB}"
    )
    words = ["--config-dir", str(tmp_path), "model=lenet5", "criterion=mine", *more]
    done = prunebench(*words)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "mine.yaml expands to more than" in done.stderr
