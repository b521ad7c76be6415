"""The examples in scripts/examples run, and return a slim network that can be trained."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from prunebench.measure import params

FOLDER = Path(__file__).resolve().parents[2] / "scripts" / "examples"
EXAMPLES = sorted(path.stem for path in FOLDER.glob("*.py"))


def imported(name: str) -> ModuleType:
    spec = spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_ten() -> None:
    assert len(EXAMPLES) == 10


def check(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    model, small = imported(name).main()
    assert params(small) == small.report.params_after < params(model) == small.report.params_before
    assert small.report.macs_after < 0.85 * small.report.macs_before
    assert str(small.report) in capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "timm_model"])
def test_the_example_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    check(name, capsys)


@pytest.mark.slow
def test_the_example_of_timm_runs(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm")
    check("timm_model", capsys)
