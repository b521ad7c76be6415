"""What needs no job to run is answered without torch and with few imports."""

import copy

import pytest
from hydra.core.config_store import ConfigStore

import prunebench as package
from prunebench.cli import VERBS
from prunebench.cli.sources import StructuredConfigSource

#: what verbs need alone, and is dear to import
OF_VERBS = ("rich", "numpy", "prunebench.reports", "prunebench.published")
#: does what is typed, and prints what is imported by then
IMPORTED = """
import sys
from prunebench.cli import main
try:
    main()
finally:
    print("IMPORTED", *sys.modules)
"""


@pytest.fixture
def command(torch_free, tmp_path):
    """``prunebench`` where torch cannot be imported."""
    return lambda *words, **env: torch_free.run("-m", "prunebench", *words, cwd=tmp_path, **env)


def test_help_names_groups_options_and_examples(command, tmp_path):
    done = command("--help")
    assert done.returncode == 0, done.stderr
    for part in ("criterion: ", "foad", "model: ", "resnet56", "experiment=quickstart", "seed: 0"):
        assert part in done.stdout
    assert not list(tmp_path.iterdir())
    verbs, _, rest = done.stdout.partition("Groups (choose")
    assert "criterion: " in rest
    for verb in VERBS:  # before all else
        assert f"  prunebench {verb} " in verbs


def test_version_is_ours(command):
    done = command("--version")
    assert (done.returncode, done.stdout) == (0, f"prunebench {package.__version__}\n")


def test_cfg_job_prints_the_composed_configuration(command):
    done = command("--cfg", "job", "method=foad", "model=resnet20")
    assert done.returncode == 0, done.stderr
    assert "_target_: prunebench.criteria.foad.Foad" in done.stdout
    assert "shortcut:" in done.stdout


#: does what is typed, and prints whether Python need not look through it all before it ends
LAST = """
import atexit
import gc
from prunebench.cli import main
gc.unfreeze()
main()
atexit._run_exitfuncs()
print("FROZEN", gc.get_freeze_count() > 10_000)
"""


def test_what_is_done_ends_at_once(torch_free, tmp_path):
    done = torch_free.run("-c", LAST, "--version", cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "FROZEN True", done.stderr


def test_tab_completes_options(command):
    done = command("-sc", "query=bash", COMP_LINE="prunebench criterion=fo", COMP_POINT="23")
    assert done.returncode == 0, done.stderr
    assert "criterion=foad" in done.stdout


def test_a_method_chooses_its_options_and_the_command_line_overrides_it(command):
    done = command("--cfg", "job", "method=foad", "criterion=l1", "recipe=quick")
    assert "prunebench.criteria.l1.L1" in done.stdout


def test_a_mistake_does_not_import_torch(command):
    done = command("criterion.t=-1")  # many more in test_mistakes.py
    assert done.returncode == 2, done.stderr
    assert "imported" not in done.stderr


@pytest.mark.parametrize(
    ("typed", "code", "answer"),
    [
        (["--help"], 0, "prunebench table outputs"),
        (["criterion=foda"], 2, "did you mean 'foad'?"),
        (["criterion=l1", "budget=uniform", "budget.keep=1.5"], 2, "budget: keep must"),
        # the last that is read before a run begins
        (["criterion=l1", "budget=uniform", "dataset=digits"], 2, "imported torch"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_nothing_is_imported_that_another_verb_needs(torch_free, tmp_path, typed, code, answer):
    done = torch_free.run("-c", IMPORTED, *typed, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    said, _, names = done.stdout.partition("IMPORTED ")
    assert answer in said + done.stderr
    imported = set(names.split())
    assert "prunebench.cli" in imported
    of_verbs = {target.partition(":")[0] for target in VERBS.values()}
    assert not {name for name in imported if name in of_verbs or name.startswith(OF_VERBS)}


def test_hydra_copies_nothing_of_what_it_ships(monkeypatch):
    source = StructuredConfigSource("schema", "structured://")
    monkeypatch.setattr(ConfigStore, "__deepcopy__", None, raising=False)  # --help took two times
    assert copy.deepcopy([source])[0].load_config("hydra/config").config
