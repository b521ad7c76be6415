"""The code keeps its limits: lengths of files and functions, and names that mean something."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path
from statistics import median

import prunebench
from prunebench.analysis.gram import GramCollection
from prunebench.repairs import Repair

PACKAGE = Path(prunebench.__file__).parent
#: every file of the package, with its text
FILES = {str(path.relative_to(PACKAGE)): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


def lines_of_functions():
    """Yields name and lines, docstring included, of every function and method."""
    for file, text in FILES.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield f"{file}: {node.name}", node.end_lineno - node.lineno + 1


def test_files_are_short():
    lines = {file: text.count("\n") for file, text in FILES.items()}
    assert {file: n for file, n in lines.items() if n > 300} == {}
    assert median(lines.values()) <= 120


def test_the_plan_of_the_house_has_every_room():
    text = (PACKAGE.parent / "docs" / "CONTRIBUTING.md").read_text()
    plan = text.partition("## Architecture")[2].split("```")[1]
    named = {
        word.rstrip("/")
        for line in plan.splitlines()
        if not line.startswith(" ")
        for word in line.split("  ")[0].replace("|", " ").split()
    }
    rooms = {Path(file).parts[0].removesuffix(".py") for file in FILES}
    assert named == {room for room in rooms if not room.startswith("_")}


def test_functions_fit_on_a_screen():
    found = dict(lines_of_functions())
    assert len(found) > len(FILES)
    assert {name: n for name, n in found.items() if n > 50} == {}


def test_names_say_something():
    nothing = {"utils", "util", "helpers", "common", "misc"}
    assert not [file for file in FILES if nothing & {*Path(file).with_suffix("").parts}]


def test_every_class_is_abstract_or_final():
    classes = {
        value
        for module in pkgutil.walk_packages(prunebench.__path__, "prunebench.")
        if not module.name.endswith("__main__")
        for value in vars(importlib.import_module(module.name)).values()
        if isinstance(value, type) and value.__module__.startswith("prunebench.")
    }
    assert len(classes) > 150
    # fields that a criterion and a repair share, and a base whose two hooks may both stay unused
    allowed = {GramCollection, Repair}
    extended = {base for value in classes for base in value.__mro__[1:] if base in classes}
    concrete = {
        base
        for base in extended - allowed
        if not inspect.isabstract(base)
        and not getattr(base, "_is_protocol", False)
        and not issubclass(base, Exception)
    }
    assert not concrete
