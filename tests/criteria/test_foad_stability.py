"""The overlap that scripts/bench/foad_stability.py prints."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench" / "foad_stability.py"


def test_the_overlap_is_jaccards_of_every_layer_and_pair():
    spec = importlib.util.spec_from_file_location("foad_stability", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    draws = [{"a": (0, 1, 2), "b": (4,)}, {"a": (1, 2, 3), "b": (4,)}, {"a": (5,), "b": (4, 6)}]
    assert script.overlaps(draws) == [2 / 4, 1.0, 0.0, 1 / 2, 0.0, 1 / 2]
