"""Steps that are recorded under observers give the same bits as unrecorded steps."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest
import torch
from torch import nn, optim
from torch.utils._python_dispatch import TorchDispatchMode

from prunebench.checkpoints import Checkpoint
from prunebench.contracts import Moment, Observer, RepeatingObserver
from prunebench.criteria.aofp.edges import Edge, find_edges
from prunebench.datasets import Data
from prunebench.recipes import Phase
from prunebench.recipes.sparsity import Sparsity
from prunebench.schedules.soft.zeros import ZerosStay
from prunebench.training.loop import train
from prunebench.training.recorder import Recorder
from prunebench.training.stage import Stage
from tests.criteria.aofp import test_observer as aofp
from tests.criteria.cac import test_observer as cac
from tests.schedules.soft import test_observer as soft
from tests.training.test_loop import CPU, Killed, data, network, outcome
from tests.training.test_recorded import LONG, AsItComes, KilledAfter, Tapes

#: times that work is done before it is recorded: nothing chooses its algorithms here
WARM_UP = 1


@pytest.fixture(autouse=True)
def _recorded_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunebench.training.recorded.WARM_UP", WARM_UP)


def trained(
    net: Any, images: Data, phase: Phase, recorder: Recorder, *observers: Observer
) -> list[Any]:
    stage = Stage(name="pruning", seed=7, device=CPU, recorder=recorder, observers=observers)
    return outcome(net, train(net, images, phase, stage))


def alike(once: Callable[[Any], Any]) -> tuple[Tapes, Any]:
    """Returns the tapes of what ended as it did without, and what it came to."""
    tapes = Tapes()
    found = once(tapes)
    assert found == once(AsItComes())
    return tapes, found


@pytest.mark.parametrize("over", ["group", "network"])
def test_penalties(over: str) -> None:
    phase = replace(
        LONG, epochs=8, gamma_l1=0.01, l1_on="read", gamma_hinge=0.02, hinge_share=0.5,
        hinge_over=over,
    )  # fmt: skip

    def once(recorder: Recorder) -> Any:
        rows: list[Any] = []
        penalties = Sparsity(phase, (3, 8, 8), stage="baseline", log=rows.append)
        return trained(network(), data(), phase, recorder, penalties), rows

    tapes, (_, rows) = alike(once)
    assert len(rows) == 8
    # full batches without and with the hinge, validation likewise; the last ends with a count
    assert tapes.counts["replayed"] == 8 * 3 - 2 * WARM_UP + 8 - 2 * WARM_UP


#: epochs of five full batches and a smaller one; once removal has begun, at every fifth
GATED, RAMP = replace(cac.PHASE, epochs=7), {"prune_every": 5}
STEPS = 6 * GATED.epochs


def gated(
    recorder: Recorder, phase: Phase = GATED, checkpoint: Checkpoint | None = None, **changes: Any
) -> Any:
    """Returns what CAC comes to: weights, removals, plan and estimates."""
    net, rows = cac.two_blocks(), []
    held = {"held": cac.apart(30)} if "holdout" in changes else {}
    work = cac.work(net, cac.both(), rows, shown=cac.apart(40)[0], **held)
    observer = cac.cac(**RAMP, **changes).observer(replace(work, epochs=GATED.epochs))
    stage = Stage(
        name="pruning", seed=7, device=CPU, recorder=recorder, observers=[observer],
        checkpoint=checkpoint,
    )  # fmt: skip
    found = outcome(net, train(net, cac.data(), phase, stage))
    sums = {name: value.tolist() for name, value in observer.estimator.sums.items()}
    return found, rows, observer.plan(), sums


def gates_end(rows: list[Any]) -> int:
    """Returns after how many steps the gates were off."""
    assert [row["gates"] for row in rows].count(False) == 1
    return int(rows[-1]["stage"].split("-")[1])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"estimator": "igg_ce", "scope": "batch"},
        {"estimator": "acc_diff", "score": "soft"},
        {"estimator": "acc_diff", "scope": "batch"},
        {"evidence": 1.64, "recalibrate": 40},
        {"start": 0.5},  # where validation is replayed before there are masks
        {"precision": "bf16"},
    ],
)
def test_steps_with_gates_are_replayed(changes: dict[str, Any]) -> None:
    asked = dict(changes)
    phase = replace(GATED, precision=asked.pop("precision", "float32"))
    tapes, (_, rows, *_) = alike(lambda to: gated(to, phase, **asked))
    off = gates_end(rows)
    removals = {*range(int(asked.get("start", 0.2) * STEPS), off, 5), off}
    # both sizes of batches, with gates and without, come as they do before they are replayed
    steps = STEPS - len(removals) - 4 * WARM_UP
    assert steps <= tapes.counts["replayed"] <= steps + GATED.epochs
    assert steps > STEPS - off + GATED.epochs  # more than there are without gates


def test_no_step_that_looks_at_held_images_is_replayed() -> None:
    tapes, (_, rows, *_) = alike(lambda to: gated(to, holdout=0.3))
    assert tapes.counts["replayed"] <= STEPS - gates_end(rows) - 2 * WARM_UP + GATED.epochs


def test_no_step_with_gates_that_goes_through_in_parts_is_replayed() -> None:
    phase = replace(GATED, accumulate=2)
    tapes, (_, rows, *_) = alike(lambda to: gated(to, phase))
    assert tapes.counts["replayed"] <= STEPS - gates_end(rows) - 2 * WARM_UP + GATED.epochs


@cache
def uninterrupted() -> Any:
    return gated(Tapes())


@pytest.mark.parametrize("moments", [[2], [10, 7], [23, 15]])
def test_a_killed_training_with_gates_ends_where_it_would_have(
    moments: list[int], tmp_path: Path
) -> None:
    expected = uninterrupted()
    checkpoint = KilledAfter(tmp_path / "c.pt", 0.0)
    for moment in moments:
        checkpoint.left = moment
        with pytest.raises(Killed):
            gated(Tapes(), checkpoint=checkpoint)
    found, rows, *rest = gated(Tapes(), checkpoint=checkpoint)
    assert [found, *rest] == [expected[0], *expected[2:]]
    assert rows == expected[1][len(expected[1]) - len(rows) :]


class Asking(RepeatingObserver):
    """Waits for the device when the gradients are there."""

    def start(self, network: nn.Module, optimizer: optim.Optimizer) -> None:
        self.weight = next(network.parameters())

    def after_backward(self, moment: Moment) -> None:
        assert self.weight.grad is not None and float(self.weight.grad.sum()) < 1e9

    def repeats(self, epoch: int, step: int, steps: int) -> bool:
        return True


def test_gates_of_a_recording_that_broke_off_are_forgotten() -> None:
    def once(recorder: Recorder) -> Any:
        net, rows = cac.mlp(), []  # without norms, whose statistics a tape moves all the same
        observer = cac.cac().observer(cac.work(net, cac.both(), rows))
        return trained(net, cac.data(), cac.PHASE, recorder, Asking(), observer), observer.plan()

    tapes = Tapes(insists=False)
    assert once(tapes) == once(AsItComes())
    assert tapes.counts["as it comes"] > 0 and tapes.tapes == 0


@pytest.mark.parametrize("masks", [False, True])
def test_filters_that_are_zeroed_between_epochs(masks: bool) -> None:
    phase = replace(soft.PHASE, epochs=8)

    def once(recorder: Recorder) -> Any:
        net, rows = soft.fresh(), []
        observer = soft.soft(net, rows, epochs=8, asked={"mask_gradients": masks})
        return trained(net, soft.data(), phase, recorder, observer), rows, observer.plan()

    tapes, (_, rows, _) = alike(once)
    assert len({row["returned"] for row in rows}) > 1 or masks
    # four full batches an epoch; the fifth ends with a selection
    assert tapes.counts["replayed"] == 8 * 4 - WARM_UP + 8 - WARM_UP


def test_zeros_that_stay() -> None:
    def once(recorder: Recorder) -> Any:
        net = network()
        net[0].weight.data[:2] = 0  # type: ignore[union-attr]
        found = trained(net, data(), LONG, recorder, ZerosStay())
        assert bool((net[0].weight[:2] == 0).all())  # type: ignore[index]
        return found

    assert alike(once)[0].counts["replayed"] == 6 * 4 - 2 * WARM_UP + 6 - WARM_UP


#: how AOFP searches -> scored steps that are replayed, at the least
SEARCHES = {
    "mean": ({"stagger": False}, 35),
    "by turns": ({"score_samples": 5, "theta": 0.5, "draws_per_half": 64}, 50),
    "by example": ({"reduction": "example", "theta": 0.4, "bn_mode": "base", "stagger": False}, 50),
    "ridge": ({"estimator": "ridge", "confirm": 8, "stagger": False}, 50),
    "gram": ({"estimator": "gram", "confirm": 48, "gram_batches": 2, "stagger": False}, 40),
    "bf16": ({"stagger": False}, 35),
    "every second": ({"score_every": 2, "draws_per_half": 16, "stagger": False}, 30),
    "chain": ({"theta": 0.5, "draws_per_half": 48}, 50),
}

#: of them, in a residual network, whose steps take three times as long
RESIDUAL = {"mean", "gram", "bf16"}
#: of five full batches and a rest, while AOFP searches in the one or the other
CHAIN_EPOCHS, RESIDUAL_EPOCHS = 18, 12


def searched(
    recorder: Tapes, residual: bool, precision: str = "float32", **changes: Any
) -> list[Any]:
    """Returns what a training comes to, what AOFP told, its damages at every step, and its masks.

    Counts the scored steps that AOFP hears of before they are done, and then no more.
    """
    net, rows = aofp.two_blocks() if residual else aofp.chain(), []
    asked = {"draws_per_half": 24, "theta": 0.25, **changes}
    observer = aofp.observer(net, rows=rows, **asked)
    before, after, damages = observer.before_step, observer.after_step, {}
    recorder.counts["scored in a replay"] = 0

    def hear(epoch: int, step: int, images: int) -> None:
        found = [search.damages.tolist() for search in observer.searches]
        damages.setdefault((epoch, step), found)
        before(epoch, step, images)
        recorder.counts["scored in a replay"] += bool(observer.drawn)

    def decide(moment: Moment) -> bool:
        recorder.counts["scored in a replay"] -= bool(observer.drawn)
        return bool(after(moment))

    observer.before_step, observer.after_step = hear, decide
    epochs = RESIDUAL_EPOCHS if residual else CHAIN_EPOCHS
    phase = replace(aofp.PHASE, epochs=epochs, precision=precision)
    ended = trained(net, aofp.data(), phase, recorder, observer)
    told = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    return [ended, told, damages, [search.masks.tolist() for search in observer.searches]]


def named(name: str, recorder: Tapes) -> list[Any]:
    """Returns what `searched` does of one of the `SEARCHES`."""
    precision = "bf16" if name == "bf16" else "float32"
    return searched(recorder, name in RESIDUAL, precision, **SEARCHES[name][0])


@cache
def as_it_comes(name: str) -> list[Any]:
    """Returns what one of the `SEARCHES` finds whose steps are not recorded."""
    return named(name, AsItComes())


@cache
def taped(name: str) -> tuple[Tapes, list[Any]]:
    """Returns the tapes of one of the `SEARCHES`, and what it finds."""
    tapes = Tapes()
    return tapes, named(name, tapes)


@pytest.mark.parametrize("name", SEARCHES)
def test_steps_that_aofp_scores_are_replayed(name: str) -> None:
    (tapes, found), least = taped(name), SEARCHES[name][1]
    assert found == as_it_comes(name)
    passed = {row["stage"].split("-")[-1] for row in found[1] if row["passed"]}
    assert len(passed) > 2  # masks change between replays
    assert tapes.counts["scored in a replay"] >= least


def as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes draws of flags, as on CUDA, instead of positions."""

    def flagged(*asked: Any) -> list[Edge]:
        return [replace(edge, flags=True) for edge in find_edges(*asked)]

    monkeypatch.setattr("prunebench.criteria.aofp.observer.find_edges", flagged)


@pytest.mark.parametrize("name", ["mean", "by turns", "ridge", "bf16"])
def test_few_recordings_serve_all_draws_on_cuda(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    positions, (_, told, damages, masks) = taped(name)
    flags = Tapes()
    as_on_cuda(monkeypatch)
    found = named(name, flags)
    assert found == named(name, AsItComes())
    assert flags.tapes < positions.tapes
    assert flags.counts["scored in a replay"] > positions.counts["scored in a replay"]
    if name != "bf16":  # whose roundings decide otherwise
        assert found[3] == masks  # the draws, which depend on the decisions
        assert [row["width"] for row in found[1]] == [row["width"] for row in told]
        for step, rows in damages.items():
            for ours, theirs in zip(found[2][step], rows, strict=True):
                assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-6)


def test_validation_is_the_same_work_whatever_was_drawn_before() -> None:
    tapes = Tapes()
    searched(tapes, residual=False, theta=0.0)
    # of a step that is recorded it hears to the end; steps that score nothing are too few
    scored = tapes.counts["scored in a replay"] + tapes.tapes - 1
    assert tapes.counts["replayed"] - scored == CHAIN_EPOCHS - WARM_UP


class Counted(Tapes):
    """Counts the recordings that somebody holds."""

    most = 0

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        if not self.tapes:
            self.held: WeakSet[Any] = WeakSet()
        found = super().record(work)
        self.held.add(found)
        self.most = max(self.most, len(self.held))
        return found


def test_old_recordings_are_forgotten_while_aofp_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunebench.training.recorded.KEPT", 3)
    tapes = Counted()
    assert named("mean", tapes) == as_it_comes("mean")
    assert tapes.tapes > 10
    assert tapes.most <= 3 + 1  # one is made before the oldest goes


def test_a_search_that_is_recorded_goes_on_after_a_kill(tmp_path: Path) -> None:
    def once(checkpoint: Any = None) -> Any:
        net = aofp.two_blocks()
        observer = aofp.observer(net, draws_per_half=24, theta=0.25, stagger=False)
        phase = replace(aofp.PHASE, epochs=7)
        stage = Stage(
            name="pruning", seed=7, device=CPU, recorder=AsItComes(), observers=[observer],
            checkpoint=checkpoint,
        )  # fmt: skip
        return outcome(net, train(net, aofp.data(), phase, stage)), observer.plan()

    checkpoint = KilledAfter(tmp_path / "c.pt", 0.0)
    for moment in (9, 13, 12):  # within halves, and where one ends
        checkpoint.left = moment
        with pytest.raises(Killed):
            once(checkpoint)
    assert once(checkpoint) == once()


class Refuses(TorchDispatchMode):
    """Breaks off where a damage is written down."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.index_copy_.default:
            raise RuntimeError("operation not permitted")
        return func(*args, **(kwargs or {}))


class Breaks(Tapes):
    """Fails to record a step in the middle of its forward."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        self.tapes += 1
        with Refuses():
            work()
        raise AssertionError("no damage was written down")


def test_a_step_whose_recording_breaks_off_is_scored_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("prunebench.training.recorded.WARM_UP", 3)  # draws are scored by then
    broken = Breaks(insists=False)
    # running statistics, which no damage depends on, have moved where it broke off
    assert named("mean", broken)[1:] == as_it_comes("mean")[1:]
    assert broken.tapes == 1
