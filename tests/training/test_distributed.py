"""Training by two processes, compared with one process, with each other, and after a kill."""

import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from prunebench.criteria.aofp.search import mean_damage
from prunebench.training.loop import train
from prunebench.training.resident import draw_epoch

sys.path.insert(0, str(Path(__file__).parent))
import distributed_scenarios as script  # noqa: E402 - what the processes did

sys.path.pop(0)

Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def ranks(python: Any, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the two processes left."""
    folder = tmp_path_factory.mktemp("two")
    with ExitStack() as stack:
        begun = [
            stack.enter_context(
                python.start(str(script.__file__), str(folder), str(rank), cwd=folder)
            )
            for rank in range(2)
        ]
        codes = [process.wait(240) for process in begun]
        assert codes == [0, 0], [process.stderr for process in begun]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.fixture
def found(ranks: list[dict[str, Any]], request: pytest.FixtureRequest) -> Found:
    """What both left of the scenario that the test's ``of`` mark names."""
    return [left[request.param] for left in ranks]


def of(name: str) -> Any:
    return pytest.mark.parametrize("found", [name], indirect=True)


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


@of("plain")
def test_two_processes_train_what_one_does(found: Found):
    network = script.plain_network()
    done = train(network, script.data(), script.PHASE, script.stage())
    for left in found:
        for name, value in network.state_dict().items():
            torch.testing.assert_close(left["network"][name], value, rtol=1e-4, atol=1e-6)
        for mine, theirs in zip(done.history, left["history"], strict=True):
            own = {**asdict(mine), "seconds": 0}
            assert theirs.pop("loss") == pytest.approx(own.pop("loss"), rel=1e-5)
            assert theirs == own  # lr and counts, validation images too


@of("plain")
def test_an_image_s_own_derivative_can_be_told_in_parts_of_unequal_size(found: Found):
    assert [left["parts"][6] for left in found] == [4, 3]
    assert max(found[0]["errors"] + found[1]["errors"]) < 1e-6


@of("synced")
def test_norms_that_see_all_images_make_no_difference_between_two_and_one(found: Found):
    network = script.normed_network()
    done = train(network, script.data(), script.SYNCED, script.stage())
    for left in found:
        for name, value in network.state_dict().items():
            torch.testing.assert_close(left["network"][name], value, rtol=1e-3, atol=1e-5)
        for mine, theirs in zip(done.history, left["history"], strict=True):
            assert theirs["loss"] == pytest.approx(mine.loss, rel=1e-4)
            assert theirs["val_correct"] == pytest.approx(mine.val_correct, abs=2)
    assert equal(found[0]["network"], found[1]["network"])
    assert equal(found[0]["in_parts"], found[1]["in_parts"])
    alone = script.normed_network()
    train(alone, script.data(), script.PHASE, script.stage())
    off = [
        (value - alone.state_dict()[name]).abs().max()
        for name, value in network.state_dict().items()
    ]
    assert max(off) > 0.01  # the average over the steps is another network


@of("norms")
def test_both_hold_the_same_network_and_draw_each_their_own(found: Found):
    first, second = found
    assert equal(first["network"], second["network"])
    assert not torch.equal(first["dropped"], second["dropped"])
    assert not torch.equal(first["mean"], second["mean"])
    assert first["history"] == second["history"]


@of("mean")
def test_both_prune_the_same_channels_by_the_draws_of_both(found: Found):
    first, second = found
    assert first["plan"] == second["plan"]
    assert all(map(torch.equal, first["alive"], second["alive"]))
    assert any(not alive.all() for alive in first["alive"])  # there is something to agree on
    assert equal(first["network"], second["network"])
    assert first["rows"] == second["rows"]
    gathered = list(zip(first["own"], second["own"], strict=True))
    differing = 0
    for row, both, damages in zip(first["rows"], gathered[::2], gathered[1::2], strict=True):
        masks, damage = torch.cat(both), torch.cat(damages)
        assert not torch.equal(*damages)
        if row["confirmed"]:
            assert torch.equal(*both)
            assert row["damage"] == pytest.approx(float(damage.mean()))
            continue
        differing += not torch.equal(*both)  # few channels leave few draws to choose from
        means = mean_damage(masks, damage)[masks.any(0)]
        worst = means.sort().values[: row["granularity"]].max()
        assert row["damage"] == pytest.approx(float(worst))
    assert differing > 5


@of("gram")
def test_gram_matrices_add_up(found: Found):
    first, second = found
    assert first["plan"] == second["plan"]
    assert first["rows"] == second["rows"]
    assert any(row["passed"] for row in first["rows"])


@of("cac")
def test_estimates_are_over_the_images_of_both(found: Found):
    first, second = found
    assert first["plan"] == second["plan"]
    assert first["rows"] == second["rows"]
    assert equal(first["network"], second["network"])
    for mine, theirs in zip(first["asked"], second["asked"], strict=True):
        slope, drawn = (
            mine["sums"][name] + theirs["sums"][name] for name in ("slope x", "slope n")
        )
        assert not torch.equal(mine["sums"]["slope x"], theirs["sums"]["slope x"])
        for left in (mine, theirs):
            torch.testing.assert_close(left["scores"], slope / drawn, equal_nan=True)
            torch.testing.assert_close(left["seen"], drawn)


@of("killed")
def test_killed_twice_in_the_middle_of_a_half_they_end_where_they_would_have(found: Found):
    for left in found:
        whole, resumed = left["whole"], left["resumed"]
        assert equal(whole["network"], resumed["network"])
        assert whole["history"] == resumed["history"]
        assert whole["plan"] == resumed["plan"]
        assert all(map(torch.equal, whole["damages"], resumed["damages"]))
        assert any(map(len, whole["damages"]))  # which is in the middle of a half, too


@of("head")
def test_two_processes_train_a_head_as_one_does(found: Found):
    whole = script.headed_network()
    done = train(whole, script.data(), script.MARGIN, script.stage())
    for left in found:
        for name, value in whole.state_dict().items():
            torch.testing.assert_close(left["network"][name], value, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(left["head"], whole.head.weight.detach(), rtol=1e-4, atol=1e-6)
        for mine, theirs in zip(done.history, left["history"], strict=True):
            assert theirs["loss"] == pytest.approx(mine.loss, rel=1e-5)
    assert not torch.equal(found[0]["head"], script.headed_network().head.weight)


@of("damaged")
def test_damaged_images_are_counted_over_both_and_stop_both_at_once(found: Found):
    first, second = found
    assert equal(first["network"], second["network"])
    named = {f"train/class{number % 2}/{number:02}.png" for number in script.DAMAGED}
    assert first["found"] == second["found"] == named
    assert [record["seen"] for record in first["history"]] == [
        script.TREE - len(named)
    ] * script.PHASE.epochs
    assert first["error"] == second["error"]
    assert (
        "3 of 40 images could not be read, more than dataset.allow_damaged=0.05" in first["error"]
    )


@of("bad")
def test_a_loss_that_one_process_alone_sees_stops_both_and_names_its_step(found: Found):
    drawn = draw_epoch(script.IMAGES, script.data(), seed=7, stage="training", epoch=0)
    step = int((drawn.order == script.BAD).nonzero()) // script.PHASE.batch_size
    for left in found:
        assert f"not finite at epoch 1 of 2, step {step + 1} of {script.STEPS}" in left["message"]
