"""Which training images the criterion and repair of a step see."""

import pytest
import torch
from hydra import compose, initialize_config_dir

from prunebench.config import load
from prunebench.options.files import conf_dir
from prunebench.run.step import draw_sample
from prunebench.schedules import Step

CPU = torch.device("cpu")
STEPS = [
    Step(name=name, groups=(), share=1.0, epochs=0, new_images=new)
    for name, new in (("a", False), ("b", False), ("c", True), ("d", True))
]


def run_of(*words):
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        return load(compose("config", overrides=["name=sample", "dataset=digits", *words]), {})


@pytest.fixture(scope="module")
def thinet():
    return run_of("model=resnet20", "model.width=0.25", "method=thinet")


def test_steps_that_ask_for_it_see_images_of_their_own_and_others_the_same(thinet):
    data = thinet.dataset.load()
    a, b, c, d = (draw_sample(thinet, data, CPU, 40, step).images[:] for step in STEPS)
    assert torch.equal(a, b)
    assert torch.equal(a, draw_sample(thinet, data, CPU, 40).images[:])
    assert torch.equal(c, draw_sample(thinet, data, CPU, 40, STEPS[2]).images[:])
    assert not torch.equal(a, c)
    assert not torch.equal(c, d)


def test_thinet_asks_for_as_many_images_of_each_class_for_each_layer(thinet):
    data = thinet.dataset.load()
    labels = draw_sample(thinet, data, CPU, 100, STEPS[2]).labels
    assert set(torch.bincount(labels, minlength=10).tolist()) <= {9, 10, 11}  # digits are uneven
    steps = thinet.schedule.steps(["one", "other"])
    assert all(step.new_images for step in steps)


def test_one_of_criterion_and_repair_suffices_to_balance(thinet):
    words = ("model=resnet20", "budget=macs", "criterion=l1", "repair=least_squares")
    plain, asked = run_of(*words), run_of(*words, "repair.class_balanced=true")
    data = plain.dataset.load()
    assert not torch.equal(
        draw_sample(plain, data, CPU, 30).labels, draw_sample(asked, data, CPU, 30).labels
    )
    assert torch.equal(
        draw_sample(thinet, data, CPU, 30).labels, draw_sample(asked, data, CPU, 30).labels
    )
