"""Every recipe, method and experiment composes to the recipe and the run it has always been.

The golden file is written anew, from the state of the working tree, by running this module.
"""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from prunebench.config import load
from prunebench.errors import PrunebenchError
from prunebench.paths import conf_dir

GOLDEN = Path(__file__).parent / "golden" / "recipes.json"
CHOSEN = sorted(
    f"{group}={path.stem}"
    for group in ("recipe", "method", "experiment")
    for path in (conf_dir() / group).glob("*.yaml")
)


def as_it_is(chosen):
    """The resolved recipe, in the order of --cfg job, and the identity of its run."""
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        cfg = compose("config", overrides=["name=test", chosen])
    recipe = OmegaConf.to_container(cfg.recipe, resolve=True)
    try:
        digest = load(cfg, {}).digest
    except PrunebenchError as error:
        digest = str(error)
    return {"digest": digest, **recipe}


@pytest.mark.parametrize("chosen", CHOSEN)
def test_it_composes_as_before(chosen):
    golden = json.loads(GOLDEN.read_text())
    assert golden.keys() == {*CHOSEN}
    assert json.dumps(as_it_is(chosen), indent=1) == json.dumps(golden[chosen], indent=1)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({name: as_it_is(name) for name in CHOSEN}, indent=1) + "\n")
