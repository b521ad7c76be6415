"""The wheel holds all configurations and runs from an empty folder; both archives are typed."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The wheel's content, as an installation would lay it out."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_every_yaml_is_inside(unpacked):
    shipped = {p.relative_to(unpacked / "prunebench" / "conf") for p in unpacked.rglob("*.yaml")}
    assert shipped == {p.relative_to(ROOT / "conf") for p in (ROOT / "conf").rglob("*.yaml")}
    assert len(shipped) >= 50


def test_its_annotations_count(unpacked):
    assert (unpacked / "prunebench" / "py.typed").exists()


def test_the_source_archive_holds_the_package(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path, ROOT],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    [path] = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    package = {
        str(path.relative_to(ROOT))
        for folder in ("prunebench", "conf")
        for path in (ROOT / folder).rglob("*.*")
        if "__pycache__" not in path.parts
    }
    assert package <= names
    assert "prunebench/py.typed" in names


def test_nothing_else_lands_in_site_packages(unpacked):
    assert {p.name for p in unpacked.iterdir() if p.suffix != ".dist-info"} == {"prunebench"}


def test_it_runs_from_an_empty_folder(unpacked, python, tmp_path):
    code = (
        "import sys;"
        "[sys.modules.pop(name) for name in [*sys.modules] if name.startswith('prunebench')];"
        f"sys.path.insert(0, {str(unpacked)!r});"
        "sys.argv = 'prunebench experiment=quickstart run.dry_run=true model.width=0.05'.split();"
        "import prunebench; from prunebench.cli import main; main();"
        "print(*(module.__file__ for name, module in sys.modules.items() if 'prunebench' in name))"
    )
    done = python.run("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "MACs:" in done.stdout
    modules = done.stdout.splitlines()[-1].split()
    assert len(modules) > 100
    assert all(path.startswith(str(unpacked)) for path in modules)
