"""The committed counts are those of our networks."""

import importlib.util
import json
from pathlib import Path

import pytest

from prunebench.models import ModelSpec
from prunebench.options import option

SCRIPT = Path(__file__).parents[2] / "scripts" / "reproduce" / "published_nets.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("published_nets", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_counts_of_a_dense_network(script):
    found = json.loads(script.FILE.read_text())
    [committed] = [
        net for net in found["nets"] if (net["model"], net["dataset"]) == ("resnet20", "cifar10")
    ]
    counted = script.conventions(
        *script.built(option("model", "resnet20", ModelSpec), "cifar10", "cpu")
    )
    assert {key: committed[key] for key in counted} == counted
    assert counted["macs"] == 40_551_040
    # normalisation and pooling on top, by hand: 2 per position and channel, 1 per pooled position
    assert counted["macs_fvcore"] > counted["macs"]


@pytest.mark.parametrize("row_id", ["l1-b-r56-c10", "l1-a-r110-c10"])
def test_counts_of_a_published_shape(script, row_id):
    assert json.loads(script.FILE.read_text())["shapes"][row_id] == script.cut(row_id)


def test_every_shape_is_counted(script):
    assert [*json.loads(script.FILE.read_text())["shapes"]] == [*script.WIDTHS]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_the_whole_file_is_up_to_date(script):
    fresh = json.dumps({"nets": script.nets(), "shapes": script.shapes()}, indent=1) + "\n"
    assert script.FILE.read_text() == fresh
